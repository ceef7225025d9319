// Counts the instructions of test/instructions: one flash attention with emulation or without.
import {execFile} from "node:child_process";
import path from "node:path";
import {promisify} from "node:util";
import {callgrind, readCount, whyNoCallgrind} from "./callgrind.js";
import {compileTarget} from "./compile-target.js";
import {UserError} from "./main.js";

/** @returns {Promise<string>} the path of the program */
export async function buildFlashAttention() {
    const reason = whyNoCallgrind();
    if (reason != null)
        throw new UserError(reason);
    const folder = await compileTarget({
        name: "instructions",
        target: "flash-attention",
        // AVX2 wherever it runs, as valgrind does not know AVX-512
        definitions: {REATTEND_ADDON: "OFF", GGML_NATIVE: "OFF"}
    });
    return path.join(folder, "flash-attention");
}

/**
 * Of one pass: those of three passes less those of one, so that start and end don't count.
 * @param {string} program
 * @param {"off" | "record" | "boost"} mode
 * @param {{type: string, queries: number, cells: number, keys: number}} shape
 */
export async function countInstructions(program, mode, {type, queries, cells, keys}) {
    const [one, three] = await Promise.all([1, 3].map(async (times) => {
        const args = [mode, type, queries, cells, keys, times].map(String);
        const [valgrind, ...options] = callgrind;
        try {
            const {stderr} = await promisify(execFile)(valgrind, [...options, program, ...args]);
            return readCount(stderr);
        } catch ({stderr, message}) {
            throw new UserError(`valgrind failed: ${(stderr || message).trim().split("\n").slice(-5).join("\n")}`);
        }
    }));
    return Math.round((three - one) / 2);
}
