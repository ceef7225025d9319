// What emulation costs in passes through the whole model, in instructions: steered against off, one build.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {whyNoCallgrind} from "../../scripts/lib/callgrind.js";
import {buildOurs} from "./builds.js";
import {countInstructions} from "./callgrind.js";
import {Child} from "./child.js";
import {makeRow} from "./turns.js";

const strength = 0.2;

export async function comparePasses({model, threads, sizes: {passes}, progress}) {
    if (passes == null)
        return {leftOut: "takes half an hour; not with --quick"};
    const reason = whyNoCallgrind();
    if (reason != null)
        return {leftOut: reason};

    progress("building llama.cpp, also for valgrind");
    const folders = {plain: await buildOurs(), counting: await buildOurs({valgrind: true})};

    const rows = [];
    const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-bench-"));
    try {
        for (const kvType of passes.kvTypes) {
            for (const depth of passes.depths) {
                const contextSize = depth + 512;
                const state = path.join(scratch, "state");
                if (depth > 0) {
                    progress(`filling ${depth} tokens, ${kvType}`);
                    await fill(folders.plain, {model, threads, contextSize, kvType, depth, state});
                }
                for (const [what, block, pieces] of [
                    [`a batch of ${passes.batch}`, `append ${passes.batch}`, 1],
                    ["decode", `decode ${passes.decode}`, passes.decode]
                ]) {
                    progress(`counting ${what} at ${depth}, ${kvType}`);
                    const count = async (steer) => await countInstructions(folders.counting, {
                        model,
                        counted: "evaluate_on_top",
                        contextSize,
                        kvType,
                        blocks: [...(depth > 0 ? [`load ${state} ${depth}`] : []), `steer ${steer}`, block]
                    }) / pieces;
                    const [off, on] = await Promise.all([count(0), count(strength)]);
                    rows.push(makeRow({
                        what: `${what} at ${depth}, ${kvType} cache`,
                        unit: "10⁶ instructions",
                        other: "off",
                        theirs: [off],
                        steered: [on],
                        valueOf: (instructions) => instructions / 1e6,
                        goal: 0.995
                    }));
                }
            }
        }
    } finally {
        fs.rmSync(scratch, {recursive: true, force: true});
    }
    return {rows, notes: ["passes: through the whole model, with one thread, built for AVX2, which is what valgrind knows"]};
}

async function fill(folder, {model, threads, contextSize, kvType, depth, state}) {
    const child = new Child(path.join(folder, "run-blocks"), [model, threads, contextSize, "wall", kvType]);
    try {
        await child.ask("fill", depth);
        await child.ask("save", state);
    } finally {
        await child.end();
    }
}
