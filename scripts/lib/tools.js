// What a build needs from the machine, and what to install where it is missing.
import {spawnSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {UserError} from "./main.js";

const packages = {
    git: {linux: "apt install git", darwin: "xcode-select --install", win32: "winget install Git.Git"},
    cmake: {linux: "apt install cmake", darwin: "brew install cmake", win32: "winget install Kitware.CMake"},
    compiler: {
        linux: "apt install g++", darwin: "xcode-select --install",
        win32: "winget install Microsoft.VisualStudio.2022.BuildTools, with its C++ workload"
    },
    nvcc: {linux: "the CUDA Toolkit, https://developer.nvidia.com/cuda-downloads", win32: "winget install Nvidia.CUDA"},
    vulkan: {
        linux: "apt install glslc libvulkan-dev spirv-headers", darwin: "brew install vulkan-loader vulkan-headers shaderc spirv-headers",
        win32: "winget install KhronosGroup.VulkanSDK"
    },
    make: {linux: "apt install make", darwin: "xcode-select --install", win32: "winget install Ninja-build.Ninja"}
};

/** The file that a command's name stands for, looked up as the shell does. */
export function findCommand(name) {
    const endings = process.platform === "win32"
        ? (process.env.PATHEXT ?? ".EXE;.CMD").split(";")
        : [""];
    for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
        for (const ending of endings) {
            const file = path.join(folder, name + ending);
            if (isExecutable(file))
                return file;
        }
    }
    return undefined;
}

/**
 * Throws, naming everything that is missing at once.
 * @param {false | "cuda" | "vulkan" | "metal"} [gpu] what is to be built
 */
export function requireTools(gpu = false) {
    if (gpu === "metal" && process.platform !== "darwin")
        throw new UserError("metal can be built on macOS only");

    const missing = [];
    if (gpu === "cuda" && findNvcc() == null)
        missing.push(describe("CUDA's compiler, nvcc", packages.nvcc));
    // CMake knows the SDK's folder from its variable
    if (gpu === "vulkan" && findCommand("glslc") == null && process.env.VULKAN_SDK == null)
        missing.push(describe("the Vulkan SDK: its shader compiler, glslc, and headers", packages.vulkan));
    if (findCommand("git") == null)
        missing.push(describe("git, as llama.cpp's source comes as a git bundle", packages.git));
    if (findCommand("cmake") == null)
        missing.push(describe("cmake (3.19 or later)", packages.cmake));

    // Visual Studio's tools are not on the path: CMake finds them by itself
    if (process.platform !== "win32") {
        if (!hasCompiler(process.env.CXX, ["c++", "g++", "clang++"]))
            missing.push(describe("a C++ compiler (g++ or clang++)", packages.compiler));
        if (!hasCompiler(process.env.CC, ["cc", "gcc", "clang"]))
            missing.push(describe("a C compiler (gcc or clang)", packages.compiler));
        if (findCommand("ninja") == null && findCommand("make") == null)
            missing.push(describe("make or ninja", packages.make));
    }

    if (missing.length > 0)
        throw new UserError(`the native build needs what is not there:\n${missing.map((line) => `  ${line}`).join("\n")}`);

    const version = /version (\d+)\.(\d+)/.exec(spawnSync("cmake", ["--version"], {encoding: "utf8"}).stdout ?? "");
    if (version != null && (Number(version[1]) < 3 || (Number(version[1]) === 3 && Number(version[2]) < 19)))
        throw new UserError(`cmake is ${version[1]}.${version[2]}; 3.19 or later is needed`);
}

/** CUDA's compiler, which its installer leaves off the path. */
export function findNvcc() {
    const named = process.env.CUDACXX;
    if (named != null && named !== "")
        return named;
    return findCommand("nvcc") ??
        [process.env.CUDA_PATH, "/usr/local/cuda"].filter(Boolean).map((folder) => path.join(folder, "bin", "nvcc")).find(isExecutable);
}

/** ccache where there is one that works: it needs a folder for its cache, which a user without a home, say, hasn't got. */
export function findCcache() {
    ccache ??= {file: checkCcache(findCommand("ccache"))};
    return ccache.file;
}

/** what was found, as it stays the same while a process runs */
let ccache;

function checkCcache(file) {
    if (file == null)
        return undefined;

    // on Windows the compiler is not on the path, but ccache opens its cache for this, too
    const compiler = process.platform === "win32"
        ? undefined
        // CC may have ccache in it already
        : ["cc", "gcc", "clang"].find((name) => findCommand(name) != null) ?? process.env.CC?.split(" ").at(-1);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-"));
    try {
        // another one each time, else an answer from the cache would hide that nothing can be written to it
        fs.writeFileSync(path.join(folder, "try.c"), `int reattend_try_${process.pid}_${Date.now()};\n`);
        const args = compiler == null
            ? ["--show-stats"]
            : [compiler, "-c", "try.c", "-o", "try.o"];
        const {status, stderr, error} = spawnSync(file, args, {cwd: folder, encoding: "utf8", timeout: 60_000});
        if (status === 0)
            return file;
        const reason = error?.message ?? stderr.trim().split("\n")[0];
        console.error(`ccache is not used, as it fails here: ${reason}`);
        return undefined;
    } finally {
        fs.rmSync(folder, {recursive: true, force: true});
    }
}

/** ninja where there is one, as it starts faster; on Windows the choice is CMake's. */
export function chooseGenerator() {
    if (process.platform === "win32")
        return undefined;
    return findCommand("ninja") == null
        ? "Unix Makefiles"
        : "Ninja";
}

/** One compiler for each core, as far as memory goes: some of llama.cpp's units take 1.5 GiB. */
export function defaultJobs() {
    return Math.max(1, Math.min(os.availableParallelism(), Math.floor(os.totalmem() / (1.5 * 1024 ** 3))));
}

function hasCompiler(named, usual) {
    const candidates = named == null || named === ""
        ? usual
        // a launcher may stand before the compiler's name
        : [named.split(" ")[0]];
    return candidates.some((name) => findCommand(name) != null || (path.isAbsolute(name) && isExecutable(name)));
}

function describe(what, commands) {
    const command = commands[process.platform] ?? commands.linux;
    return `${what}; install it with: ${command}`;
}

function isExecutable(file) {
    try {
        fs.accessSync(file, fs.constants.X_OK);
        return fs.statSync(file).isFile();
    } catch {
        return false;
    }
}
