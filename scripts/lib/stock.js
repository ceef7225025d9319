// Stock node-llama-cpp's prebuilt binary, which a test and bench:compare run beside ours.
import path from "node:path";
import process from "node:process";
import {readIfThere} from "./files.js";
import {nodeLlamaCppFolder} from "./paths.js";

/** The packages without a GPU (Metal's is the only one for Apple silicon), by platform and architecture as Node.js names them. */
const packages = {
    "linux-x64": "linux-x64",
    "linux-arm64": "linux-arm64",
    "linux-arm": "linux-armv7l",
    "linux-riscv64": "linux-riscv64",
    "darwin-arm64": "mac-arm64-metal",
    "darwin-x64": "mac-x64",
    "win32-x64": "win-x64",
    "win32-arm64": "win-arm64"
};

/** The platform that stock.test.ts is written for, and that install-stock installs it on. */
export function isStockTested() {
    return process.platform === "linux" && process.arch === "x64" && process.report.getReport().header.glibcVersionRuntime != null;
}

/** The package that has the binary for this machine, with its version, as npm takes it; `undefined` where there is none. */
export function stockPackage() {
    const name = packages[`${process.platform}-${process.arch}`];
    return name == null
        ? undefined
        : `@node-llama-cpp/${name}@${versionIn(nodeLlamaCppFolder())}`;
}

/** Why stock node-llama-cpp can't run here; `undefined` where it can. */
export function whyNoStock() {
    const name = stockPackage();
    if (name == null)
        return `stock node-llama-cpp has no binary for ${process.platform}-${process.arch}`;

    // node-llama-cpp takes only a binary of its own version
    const [, folder, version] = /^(.+)@(.+)$/.exec(name);
    return versionIn(path.join(path.dirname(nodeLlamaCppFolder()), folder)) === version
        ? undefined
        : `stock node-llama-cpp's binary is not there; install it with: npm install --no-save --ignore-scripts ${name}`;
}

function versionIn(folder) {
    const text = readIfThere(path.join(folder, "package.json"));
    return text == null
        ? undefined
        : JSON.parse(text).version;
}
