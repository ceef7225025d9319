// Drives cmake-js over native/CMakeLists.txt. `configure` and `build` apart: its `compile` wipes a build that fails.
import {spawn} from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import {readIfThere} from "./files.js";
import {describeFileError, endingSignals, exitCodeOf, UserError} from "./main.js";
import {binariesFolder, buildFolder, cmakeJsFile, nativeFolder, nodeAddonApiFolder, nodeLlamaCppFolder, packageRoot, sourceFolder} from "./paths.js";
import {Progress} from "./progress.js";
import {chooseGenerator, defaultJobs, findCcache, findNvcc} from "./tools.js";

/** Where a build's libraries and programs are. */
export function outputFolder(name) {
    return path.join(buildFolder, name, "lib");
}

/**
 * Compiles, incrementally.
 * @param {object} options
 * @param {string} options.name of the build's folder in native/build
 * @param {false | "cuda" | "vulkan" | "metal"} options.gpu
 * @param {"Release" | "Debug" | "RelWithDebInfo"} options.config
 * @param {boolean} [options.portable] for other machines' processors, too
 * @param {Record<string, string>} options.definitions for CMake, beyond those that every build has
 * @param {string} [options.target] of CMake; default: the addon and its libraries
 * @param {number} [options.jobs]
 * @returns {Promise<string>} the folder with the libraries
 */
export async function compile({name, gpu, config, portable = false, definitions, target, jobs = defaultJobs()}) {
    const folder = path.join(buildFolder, name);
    const output = outputFolder(name);
    const log = new BuildLog(`${folder}.log`);
    const all = {...commonDefinitions(gpu, portable), REATTEND_OUTPUT: output, ...definitions};
    const cmakeJs = [
        "--directory", nativeFolder, "--out", folder, "--config", config, "--log-level", "warn",
        ...generatorArguments(folder)
    ];

    // CMake keeps what a definition was, and a folder that has moved breaks it: another set of them means another build
    const configuration = JSON.stringify([cmakeJs, all], null, 4);
    const stamp = path.join(folder, "reattend-configuration.json");
    if (readIfThere(stamp)?.toString() !== configuration) {
        fs.rmSync(folder, {recursive: true, force: true});
        await log.run("configure", ["configure", ...cmakeJs, ...Object.entries(all).map(([key, value]) => `--CD${key}=${value}`)]);
        fs.writeFileSync(stamp, configuration);
    }

    const progress = new Progress(`Compiling llama.cpp${gpu === false ? "" : ` for ${gpu}`}`);
    await log.run("build", ["build", ...cmakeJs, ...(target == null ? [] : ["--target", target]), "--parallel", String(jobs)], progress);
    return output;
}

/** Puts finished libraries where the loader looks, each in one step: a process that uses the old ones keeps them. */
export function install(output, name, {gpu, portable}) {
    const target = path.join(binariesFolder, name);
    const wanted = fs.readdirSync(output).filter((file) => /\.(node|so|dylib|dll|metallib|metal)$/.test(file));
    fs.mkdirSync(target, {recursive: true});

    for (const file of fs.readdirSync(target).filter((file) => file !== "build.json" && !wanted.includes(file)))
        fs.rmSync(path.join(target, file));
    for (const file of wanted) {
        const source = path.join(output, file);
        const destination = path.join(target, file);
        const {size, mtimeMs} = fs.statSync(source);
        const old = fs.statSync(destination, {throwIfNoEntry: false});
        if (old?.size === size && old.mtimeMs === mtimeMs)
            continue;

        fs.copyFileSync(source, `${destination}.new`);
        fs.utimesSync(`${destination}.new`, mtimeMs / 1000, mtimeMs / 1000);
        fs.renameSync(`${destination}.new`, destination);
    }
    // it is what makes the folder a build, so it is there whole or not at all
    const infoFile = path.join(target, "build.json");
    fs.writeFileSync(`${infoFile}.new`, JSON.stringify(buildInfo({gpu, portable}), null, 4) + "\n");
    fs.renameSync(`${infoFile}.new`, infoFile);
    return target;
}

/** What build.json says; src/builds.ts takes only builds of its own version. */
export function buildInfo({gpu, portable}) {
    const {version} = JSON.parse(fs.readFileSync(path.join(packageRoot, "package.json"), "utf8"));
    return {reattend: version, gpu, portable, llamaCpp: llamaCppRelease(), cmakeOptions: {}};
}

export function llamaCppRelease() {
    const {tag, llamaCppGithubRepo} = JSON.parse(fs.readFileSync(path.join(nodeLlamaCppFolder(), "llama", "llama.cpp.info.json"), "utf8"));
    return {repo: llamaCppGithubRepo, release: tag};
}

/** What CMake is told for every build. */
export function commonDefinitions(gpu, portable) {
    const ccache = findCcache();
    return {
        REATTEND_LLAMA_CPP: sourceFolder,
        REATTEND_NODE_LLAMA_CPP: path.join(nodeLlamaCppFolder(), "llama"),
        REATTEND_NODE_ADDON_API: nodeAddonApiFolder(),
        REATTEND_TESTS: fs.existsSync(path.join(packageRoot, "test", "native")) ? "ON" : "OFF", // they are not in the package

        // else for the processor at hand
        ...(portable ? portableInstructions() : {GGML_NATIVE: "ON"}),
        // Node.js runs each batch on another thread of its pool, and OpenMP keeps a team of threads for each of those. With more of them
        // than cores it lets every barrier sleep, which halves the speed; ggml's own threads don't.
        GGML_OPENMP: "OFF",
        GGML_METAL: gpu === "metal" ? "ON" : "OFF",
        GGML_CUDA: gpu === "cuda" ? "ON" : "OFF",
        GGML_VULKAN: gpu === "vulkan" ? "ON" : "OFF",
        ...(gpu === "cuda" && process.platform !== "win32" ? {CMAKE_CUDA_COMPILER: findNvcc()} : {}),

        // models that are spread over several machines; not over what this one happens to have for it
        GGML_RPC: "ON",
        GGML_RPC_RDMA: "OFF",

        // a version that stays the same: the default is that of any git repository around
        LLAMA_BUILD_NUMBER: "1",
        LLAMA_BUILD_COMMIT: llamaCppRelease().release,

        // nothing that downloads or serves, and what goes with it
        LLAMA_CURL: "OFF",
        LLAMA_HTTPLIB: "OFF",
        LLAMA_OPENSSL: "OFF",
        LLAMA_BUILD_BORINGSSL: "OFF",
        LLAMA_BUILD_TESTS: "OFF",
        LLAMA_BUILD_TOOLS: "OFF",
        LLAMA_BUILD_EXAMPLES: "OFF",
        LLAMA_BUILD_SERVER: "OFF",
        LLAMA_BUILD_APP: "OFF",

        GGML_CCACHE: "OFF",
        ...(ccache == null ? {} : {CMAKE_C_COMPILER_LAUNCHER: ccache, CMAKE_CXX_COMPILER_LAUNCHER: ccache})
    };
}

/** On x64 they are named, as llama.cpp leaves them out where SOURCE_DATE_EPOCH is set. */
function portableInstructions() {
    const x64 = {GGML_SSE42: "ON", GGML_AVX: "ON", GGML_AVX2: "ON", GGML_FMA: "ON", GGML_F16C: "ON", GGML_BMI2: "ON"};
    return {GGML_NATIVE: "OFF", ...(process.arch === "x64" ? x64 : {})};
}

/** A build goes on with the generator that it was begun with, though a better one may have come since. */
function generatorArguments(folder) {
    const cache = readIfThere(path.join(folder, "CMakeCache.txt"))?.toString() ?? "";
    const generator = /^CMAKE_GENERATOR:INTERNAL=(.*)$/m.exec(cache)?.[1] ?? chooseGenerator();
    return generator == null
        ? []
        : ["--generator", generator];
}

class BuildLog {
    #file;
    #handle;

    constructor(file) {
        fs.mkdirSync(path.dirname(file), {recursive: true});
        this.#file = file;
        this.#handle = fs.openSync(file, "w");
    }

    /** Runs cmake-js with all output going to the log; throws with the first error in it. */
    async run(step, args, progress) {
        let text = "";
        const child = spawn(process.execPath, [cmakeJsFile(), ...args], {
            stdio: ["ignore", "pipe", "pipe"],
            // a group of its own, so that a signal reaches the compilers, too
            detached: process.platform !== "win32",
            // paths within the package do not count: a clone elsewhere finds what was compiled here
            env: {...process.env, CCACHE_BASEDIR: packageRoot, CCACHE_NOHASHDIR: "1", CLICOLOR_FORCE: "0"}
        });
        let rest = "";
        let logError;
        const take = (chunk) => {
            try {
                fs.writeSync(this.#handle, chunk);
            } catch (error) {
                // a full disk; the build has its own words for it
                logError ??= error;
            }
            text += chunk;
            const lines = (rest + chunk).split(/\r?\n/);
            rest = lines.pop();
            for (const line of lines)
                progress?.read(line);
        };
        child.stdout.setEncoding("utf8").on("data", take);
        child.stderr.setEncoding("utf8").on("data", take);

        const {code, signal} = await untilEnd(child);
        progress?.end();
        if (signal != null) {
            console.error(`Interrupted. ${isRemovedOnFailure() ? keepHint : "The next run goes on from here."}`);
            process.exit(exitCodeOf(signal));
        }
        if (code !== 0)
            throw new UserError(`the native build failed (${step}).\n${[firstError(text), ...this.#advise(text, logError)].join("\n")}`);
    }

    #advise(text, logError) {
        const advice = [];
        if (isWithoutGpu(text))
            advice.push("Where no GPU is at hand, use --portable (REATTEND_PORTABLE=1 in the environment), which compiles for all of them.");
        if (logError != null)
            advice.push(`The log could not be written whole: ${describeFileError(logError) ?? logError.message}`);
        advice.push(isRemovedOnFailure()
            ? keepHint
            : `The whole log is in ${path.relative(process.cwd(), this.#file)}`);
        return advice;
    }
}

/** Waits until a build has ended, with all that it started. A signal is passed on to it, as its compilers would go on without us. */
async function untilEnd(child) {
    let received;
    const passOn = (signal) => {
        received ??= signal;
        // on Windows a console gives Ctrl-C to all of its processes
        if (process.platform !== "win32")
            killGroup(child.pid, signal);
    };
    const others = endingSignals.map((signal) => [signal, process.listeners(signal)]);
    for (const signal of endingSignals)
        process.removeAllListeners(signal).on(signal, passOn);
    try {
        const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
        return {code, signal: received};
    } finally {
        for (const [signal, listeners] of others) {
            process.off(signal, passOn);
            listeners.forEach((listener) => process.on(signal, listener));
        }
    }
}

function killGroup(pid, signal) {
    try {
        process.kill(-pid, signal);
    } catch {
        // it has ended already
    }
}

/** Whether this is an installation by npm: where its script fails, npm removes the package again, with all that was built. */
function isRemovedOnFailure() {
    const {npm_lifecycle_event: event, npm_command: command, npm_config_user_agent: manager = "npm/"} = process.env;
    return event === "install" && command !== "rebuild" && manager.startsWith("npm/") &&
        path.basename(path.dirname(path.resolve(packageRoot))) === "node_modules";
}

// now where a script fails; where it was interrupted, the next installation does it
const keepHint = "npm removes reattend, with what was built and the log, now or when it installs next. For builds that go on where the last one " +
    "ended, install with `--ignore-scripts`, then run `npx reattend build`.";

/** What CMake says where it is to compile for the GPU at hand, and there is none. */
function isWithoutGpu(text) {
    return /is set to\s+"native", but no .*GPU\s+was\s+detected/.test(text);
}

/** The first error in a build's output, with the lines that belong to it; much more of them where the log does not stay. */
function firstError(text) {
    const lines = text.trimEnd().split("\n");
    const [before, after, atEnd] = isRemovedOnFailure()
        ? [15, 45, 60]
        : [0, 8, 15];
    const isError = /(^|\s)(fatal )?error( C\d+| LNK\d+)?:|^CMake Error|undefined reference|: No space left/i;
    const first = lines.findIndex((line) => isError.test(line));
    return (first < 0 ? lines.slice(-atEnd) : lines.slice(Math.max(0, first - before), first + after)).join("\n").trim();
}
