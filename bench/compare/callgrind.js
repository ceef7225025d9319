// Instructions of run-blocks.
import {spawn} from "node:child_process";
import path from "node:path";
import {text} from "node:stream/consumers";
import {callgrind, readCount} from "../../scripts/lib/callgrind.js";

/**
 * Of all calls of a function while run-blocks does its work with one thread.
 * @param {string} folder where run-blocks is
 * @param {object} work
 * @param {string} work.model
 * @param {string} work.counted the function
 * @param {string[]} work.blocks lines for run-blocks
 * @param {number} [work.contextSize]
 * @param {string} [work.kvType]
 */
export async function countInstructions(folder, {model, counted, blocks, contextSize = 512, kvType = "f16"}) {
    const [valgrind, ...options] = callgrind;
    const child = spawn(valgrind, [
        ...options, `--toggle-collect=${counted}`,
        path.join(folder, "run-blocks"), model, "1", String(contextSize), "wall", kvType
    ], {stdio: ["pipe", "ignore", "pipe"]});
    child.stdin.on("error", () => undefined); // the end of the process tells more
    child.stdin.end(blocks.map((block) => `${block}\n`).join(""));
    return readCount(await text(child.stderr));
}
