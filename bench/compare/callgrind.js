// Instructions of run-blocks, as valgrind counts them: no other process disturbs that.
import {spawn} from "node:child_process";
import path from "node:path";
import {text} from "node:stream/consumers";
import {findCommand} from "../../scripts/lib/tools.js";

/** @returns {string | undefined} why instructions can't be counted here */
export function whyNoCounting() {
    return findCommand("valgrind") == null
        ? "valgrind is not there; install it with: apt install valgrind"
        : undefined;
}

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
    const child = spawn("valgrind", [
        "--tool=callgrind", "--callgrind-out-file=/dev/null", `--toggle-collect=${counted}`,
        path.join(folder, "run-blocks"), model, "1", String(contextSize), "wall", kvType
    ], {stdio: ["pipe", "ignore", "pipe"]});
    child.stdin.on("error", () => undefined); // the end of the process tells more
    child.stdin.end(blocks.map((block) => `${block}\n`).join(""));
    const output = await text(child.stderr);
    const [, count] = /Collected : (\d+)/.exec(output) ?? [];
    if (count == null)
        throw new Error(`valgrind counted nothing: ${output.trim().split("\n").at(-1)}`);
    return Number(count);
}
