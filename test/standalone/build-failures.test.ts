// What the build scripts say where a build can't be made, and that they leave nothing running. In a copy of them, with a cmake-js that only
// does what is being tested.
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath, pathToFileURL} from "node:url";
import test from "ava";
import {runProcess} from "../support/cli.js";
import type {ExecutionContext} from "ava";
import type {ChildProcess} from "node:child_process";

const scripts = fileURLToPath(new URL("../../scripts/", import.meta.url));
const {describeFileError} = await import(pathToFileURL(path.join(scripts, "lib/main.js")).href) as {
    describeFileError: (error: unknown) => string | undefined
};
/** Windows has neither the signals nor the shell scripts that these tests need. */
const onPosix = (title: string, run: (t: ExecutionContext) => Promise<void>) => process.platform === "win32"
    ? test.skip(`${title} [skipped: Windows has no such signals, permissions and scripts]`, run)
    : test(title, run);

/** A package as an installation has it. */
async function makePackage(t: ExecutionContext, {cmakeJs}: {cmakeJs: string}) {
    const project = await fs.realpath(await fs.mkdtemp(path.join(os.tmpdir(), "reattend-test-")));
    t.teardown(() => fs.rm(project, {recursive: true, force: true}));
    const modules = path.join(project, "node_modules");
    const root = path.join(modules, "reattend");
    await fs.cp(scripts, path.join(root, "scripts"), {recursive: true});
    for (const [file, content] of Object.entries({
        "reattend/package.json": '{"name": "reattend", "version": "1.2.3", "type": "module"}',
        "cmake-js/package.json": '{"name": "cmake-js"}',
        "cmake-js/bin/cmake-js": cmakeJs,
        "node-addon-api/package.json": '{"name": "node-addon-api"}',
        "node-llama-cpp/package.json": '{"name": "node-llama-cpp", "type": "module", "exports": "./dist/index.js"}',
        "node-llama-cpp/dist/index.js": "",
        "node-llama-cpp/llama/llama.cpp.info.json": '{"tag": "b1", "llamaCppGithubRepo": "r"}'
    })) {
        await fs.mkdir(path.dirname(path.join(modules, file)), {recursive: true});
        await fs.writeFile(path.join(modules, file), content);
    }

    /** Compiles as scripts/build-native does, without llama.cpp's source. */
    function compile(env: Record<string, string> = {}, onStderr?: (text: string, child: ChildProcess) => void) {
        const lib = (name: string) => JSON.stringify(pathToFileURL(path.join(root, "scripts/lib", name)).href);
        return runProcess(process.execPath, ["--input-type=module", "--eval", `
            const {runMain} = await import(${lib("main.js")});
            const {withBuildLock} = await import(${lib("lock.js")});
            const {compile} = await import(${lib("native-build.js")});
            await runMain("build", () => withBuildLock(() => compile({name: "cpu", gpu: false, config: "Release", definitions: {}, jobs: 1})));
        `], {env: {npm_lifecycle_event: "", npm_command: "", npm_config_user_agent: "npm/11.0.0", ...env}, onStderr});
    }
    return {project, build: path.join(root, "native", "build"), compile};
}

const failing = (lines: string[]) => `console.log(${JSON.stringify(lines.join("\n"))}); process.exit(1);`;
const manyLines = [
    ...Array.from({length: 100}, (_, index) => `before ${index}.`), "a.cpp:1:1: error: no such thing", ...Array.from({length: 100}, (_, index) => `after ${index}.`)
];

test("a build that fails shows the first error, and where the log is", async (t) => {
    const {compile} = await makePackage(t, {cmakeJs: failing(manyLines)});
    const {code, stderr} = await compile();
    t.is(code, 1);
    t.regex(stderr, /the native build failed \(configure\)\.\na\.cpp:1:1: error: no such thing\nafter 0\./);
    t.regex(stderr, /The whole log is in .*cpu\.log\n$/);
    t.false(stderr.includes("after 20."));
});

test("in an installation, which npm undoes, a build that fails shows more, and how to keep what is built", async (t) => {
    const {compile} = await makePackage(t, {cmakeJs: failing(manyLines)});
    const {code, stderr} = await compile({npm_lifecycle_event: "install", npm_command: "install"});
    t.is(code, 1);
    for (const line of ["before 90.", "error: no such thing", "after 40.", "--ignore-scripts", "npx reattend build"])
        t.true(stderr.includes(line), `${line} in ${stderr}`);

    const others: Array<Record<string, string>> = [{npm_command: "rebuild"}, {npm_config_user_agent: "pnpm/10.0.0 npm/? node/?"}];
    for (const env of others)
        t.false((await compile({npm_lifecycle_event: "install", ...env})).stderr.includes("--ignore-scripts"));
});

test("where CUDA's kernels are to be compiled for a GPU that is not there, --portable is named", async (t) => {
    const {compile} = await makePackage(t, {cmakeJs: failing([
        "CMake Error in ggml/src/ggml-cuda/CMakeLists.txt:", '  CUDA_ARCHITECTURES is set to "native", but no GPU was detected.'
    ])});
    t.regex((await compile()).stderr, /no GPU was detected\.\n.*use --portable /);
});

/** A compiler that takes a moment to end, below a cmake-js that does not. */
const slow = `
    const {spawn} = require("node:child_process");
    const fs = require("node:fs");
    const folder = process.argv[process.argv.indexOf("--out") + 1];
    fs.mkdirSync(folder, {recursive: true});
    if (process.argv[2] === "configure")
        process.exit(0);
    spawn(process.execPath, ["--eval", \`
        const fs = require("node:fs");
        for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
            process.on(signal, () => setTimeout(() => {
                fs.writeFileSync("\${folder}.ended", signal + (fs.existsSync("\${folder}/../lock") ? ", locked" : ", not locked"));
                process.exit(1);
            }, 300));
        setInterval(() => {}, 1000);
        console.log("[ 10%] compiling");
    \`], {stdio: "inherit"});
`;

for (const [signal, exitCode] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    onPosix(`${signal} ends the compilers, and then frees the lock`, async (t) => {
        const {build, compile} = await makePackage(t, {cmakeJs: slow});
        const {code, stderr} = await compile({}, (text, child) => {
            if (text.includes("10 %"))
                child.kill(signal);
        });
        t.is(code, exitCode, stderr);
        t.regex(stderr, /Interrupted\. The next run goes on from here\.\n$/);
        t.is(await fs.readFile(path.join(build, "cpu.ended"), "utf8"), `${signal}, locked`);
        t.false((await fs.readdir(build)).includes("lock"));
    });
}

onPosix("interrupted in an installation, it says how to keep what is built", async (t) => {
    const {compile} = await makePackage(t, {cmakeJs: slow});
    const {stderr} = await compile({npm_lifecycle_event: "install", npm_command: "ci"}, (text, child) => {
        if (text.includes("10 %"))
            child.kill("SIGINT");
    });
    t.regex(stderr, /Interrupted\. npm removes reattend.*--ignore-scripts.*npx reattend build/);
});

onPosix("reattend build passes signals on to the script", async (t) => {
    const {project} = await makePackage(t, {cmakeJs: ""});
    const root = path.join(project, "node_modules", "reattend");
    await fs.cp(fileURLToPath(new URL("../../dist/cli/build.js", import.meta.url)), path.join(root, "dist", "cli", "build.js"));
    await fs.writeFile(path.join(root, "scripts", "build-native.js"), `
        process.on("SIGTERM", () => process.exit(7));
        setInterval(() => {}, 1000);
        console.error("ready");
    `);
    const {code} = await runProcess(process.execPath, ["--input-type=module", "--eval", `
        const {runBuild} = await import(${JSON.stringify(pathToFileURL(path.join(root, "dist/cli/build.js")).href)});
        await runBuild({});
    `], {
        onStderr: (_text, child) => void child.kill("SIGTERM")
    });
    t.is(code, 7);
});

/** A folder with links to what a build needs, and these scripts in place of programs. */
async function makePath(project: string, links: readonly string[], programs: Record<string, string> = {}) {
    const folder = path.join(project, "path");
    await fs.mkdir(folder);
    for (const name of links) {
        const found = (process.env.PATH ?? "").split(path.delimiter).map((part) => path.join(part, name));
        for (const file of found)
            await fs.access(file).then(() => fs.symlink(file, path.join(folder, name))).catch(() => undefined);
    }
    for (const [name, content] of Object.entries(programs))
        await fs.writeFile(path.join(folder, name), `#!/bin/sh\n${content}\n`, {mode: 0o755});
    return folder;
}

onPosix("a ccache that does not work is left out, with a note", async (t) => {
    const cmakeJs = "console.log(process.argv.join(' ')); process.exit(1);";
    for (const [program, used] of [["echo 'no cache folder' >&2; exit 1", false], ['exec "$@"', true]] as const) {
        const {project, build, compile} = await makePackage(t, {cmakeJs});
        const {stderr} = await compile({PATH: await makePath(project, ["cc", "as", "ld"], {ccache: program})});
        t.is(stderr.includes("ccache is not used, as it fails here: no cache folder\n"), !used, stderr);
        t.is((await fs.readFile(path.join(build, "cpu.log"), "utf8")).includes("COMPILER_LAUNCHER"), used);
    }
});

onPosix("all tools that are missing are named at once", async (t) => {
    const {project} = await makePackage(t, {cmakeJs: ""});
    const {code, stderr} = await runProcess(process.execPath, [path.join(project, "node_modules/reattend/scripts/build-native.js")], {
        env: {PATH: await makePath(project, []), CC: "", CXX: "", REATTEND_GPU: "false"}
    });
    t.is(code, 1);
    for (const tool of ["git, ", "cmake (", "a C++ compiler", "a C compiler", "make or ninja"])
        t.regex(stderr, new RegExp(`^  ${tool.replace("(", "\\(").replaceAll("+", "\\+")}.*install it with: `, "m"));
});

test("what can't be written is told in one sentence with its path", async (t) => {
    const {build, compile} = await makePackage(t, {cmakeJs: ""});
    for (const [error, message] of [
        [{code: "EACCES", syscall: "mkdir", path: "/a/b"}, /^cannot make \/a\/b: permission denied; .+ \(EACCES\)$/],
        [{code: "EROFS", syscall: "link", path: "/a", dest: "/b"}, /^cannot make \/b: the file system is read-only; .+ \(EROFS\)$/],
        [{code: "EPERM", syscall: "open", path: "/a"}, /^cannot open \/a: the operation is not permitted; /],
        [{code: "ENOSPC", syscall: "write"}, /^cannot write to .*native: no space is left on the disk; /]
    ] as const)
        t.regex(describeFileError(error)!, message);
    t.is(describeFileError(new TypeError("x")), undefined);

    // root may write anywhere
    if (process.platform === "win32" || process.getuid?.() === 0)
        return;
    await fs.mkdir(build, {recursive: true});
    await fs.chmod(build, 0o555);
    t.regex((await compile()).stderr, /^build: cannot open .*lock.*: permission denied; [^\n]*\n$/);
    await fs.chmod(build, 0o755);
});
