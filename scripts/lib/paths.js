// Where things are: inside the package, and of the packages that we build upon.
import {createRequire} from "node:module";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";

const require = createRequire(import.meta.url);

export const packageRoot = fileURLToPath(new URL("../..", import.meta.url));

export const nativeFolder = path.join(packageRoot, "native");
export const patchesFolder = path.join(nativeFolder, "patches");
export const overlayFolder = path.join(nativeFolder, "overlay");

/** Everything under here can be made again. */
export const buildFolder = path.join(nativeFolder, "build");
export const sourceFolder = path.join(buildFolder, "source", "llama.cpp");

/** Finished binaries, one folder for each variant; src/builds.ts looks for them here. */
export const binariesFolder = path.join(nativeFolder, "bin");

/** node-llama-cpp exports neither its package.json nor its native sources; its main file is one folder below its root. */
export function nodeLlamaCppFolder() {
    return path.dirname(path.dirname(fileURLToPath(import.meta.resolve("node-llama-cpp"))));
}

export function nodeAddonApiFolder() {
    return path.dirname(require.resolve("node-addon-api/package.json"));
}

export function cmakeJsFile() {
    return path.join(path.dirname(require.resolve("cmake-js/package.json")), "bin", "cmake-js");
}

export const gpuTypes = ["cuda", "vulkan", "metal"];

/** The folder of a build inside native/bin; src/builds.ts has the same rule. */
export function buildName(gpu) {
    return [process.platform, process.arch, ...(gpu === false ? [] : [gpu])].join("-");
}
