// Counts instructions, which no busy machine can blur, of test/instructions: one flash attention with emulation or without.
import {execFile} from "node:child_process";
import path from "node:path";
import {promisify} from "node:util";
import {withBuildLock} from "./lock.js";
import {UserError} from "./main.js";
import {compile} from "./native-build.js";
import {prepareSource} from "./source.js";
import {findCommand, requireTools} from "./tools.js";

/** @returns {Promise<string>} the path of the program */
export async function buildFlashAttention() {
    if (findCommand("valgrind") == null)
        throw new UserError("valgrind is not there; install it with: apt install valgrind");
    requireTools();
    const folder = await withBuildLock(() => {
        prepareSource();
        return compile({
            name: "instructions",
            gpu: false,
            config: "Release",
            target: "flash-attention",
            // AVX2 wherever it runs, as valgrind does not know AVX-512; and one thread without OpenMP's
            definitions: {REATTEND_ADDON: "OFF", GGML_NATIVE: "OFF", GGML_OPENMP: "OFF"}
        });
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
        const {stderr} = await promisify(execFile)(
            "valgrind", ["--tool=callgrind", "--callgrind-out-file=/dev/null", program, ...args]
        ).catch(({stderr, message}) => {
            throw new UserError(`valgrind failed: ${(stderr || message).trim().split("\n").slice(-5).join("\n")}`);
        });
        const [, collected] = /Collected : (\d+)/.exec(stderr) ?? [];
        if (collected == null)
            throw new UserError(`valgrind tells no count: ${stderr.trim().split("\n").slice(-5).join("\n")}`);
        return Number(collected);
    }));
    return Math.round((three - one) / 2);
}
