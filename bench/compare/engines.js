import process from "node:process";
import {createRequire} from "node:module";
import {fileURLToPath} from "node:url";
import {Child} from "./child.js";

const require = createRequire(import.meta.url);
const program = fileURLToPath(new URL("engine.js", import.meta.url));

/** Starts a process with one model; see engine.js for what it can be asked. */
export function startEngine(name, {model, threads, clock = "wall"}) {
    return new Child(process.execPath, [program, name, model, threads, clock]);
}

/** Why stock node-llama-cpp can't run here; `undefined` where it can. */
export function whyNoStock() {
    const platform = {linux: "linux", darwin: "mac", win32: "win"}[process.platform];
    const name = `@node-llama-cpp/${platform}-${process.arch}`;
    try {
        require.resolve(`${name}/package.json`);
        return undefined;
    } catch (error) {
        // it may not export its package.json
        return error.code === "MODULE_NOT_FOUND"
            ? `stock node-llama-cpp's binary is not there; install it with: npm install --no-save ${name}`
            : undefined;
    }
}
