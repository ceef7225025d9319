import process from "node:process";
import {fileURLToPath} from "node:url";
import {Child} from "./child.js";

const program = fileURLToPath(new URL("engine.js", import.meta.url));

/** Starts a process with one model; see engine.js for what it can be asked. */
export function startEngine(name, {model, threads, clock = "wall"}) {
    return new Child(process.execPath, [program, name, model, threads, clock]);
}
