// With emulation against without, in one process, without Node.js.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {median} from "#dist/bench/summary.js";
import {buildOurs} from "./builds.js";
import {Child} from "./child.js";
import {takeTurns, timesAsFast, tokensPerSecond} from "./turns.js";

const steeredStrength = 0.2;
const batchSize = 512; // of run-blocks

export async function compareOn({model, threads, clock, sizes: {on}, progress}) {
    progress("building llama.cpp with our patches");
    const program = path.join(await buildOurs(), "run-blocks");
    const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-bench-"));

    const rows = [];
    try {
        for (const kvType of on.kvTypes) {
            for (const work of piecesOfWork(on)) {
                const contextSize = work.depth + work.tokens + 1;
                const start = () => new Child(program, [model, threads, contextSize, clock, kvType]);
                const told = (text) => progress(`${work.name}, ${kvType}: ${text}`);
                const state = path.join(scratch, "state");
                if (work.depth > 0) {
                    told("filling the context");
                    await fill(start(), work.depth, state);
                }
                const processes = [];
                for (let index = 0; index < work.processes; index++) {
                    told(`process ${index + 1} of ${work.processes}`);
                    processes.push(await measure(start(), {...work, state, reversed: index % 2 === 1}));
                }
                rows.push(makeRow(`${work.name}, ${kvType}`, work, processes, on.goal));
            }
        }
    } finally {
        fs.rmSync(scratch, {recursive: true});
    }
    return {
        rows,
        notes: ["on: emulation in turns with none, in several processes; the ratio is the median of the processes' medians, with their quartiles"]
    };
}

// where a process has its memory favours one of the two by some per cent for all of its life, so there must be several
function piecesOfWork({prefill, decode, decodeTokens}) {
    return [
        ...prefill.map(({tokens, ...rounds}) => ({name: `on: prefill of ${tokens}`, block: "prefill", depth: 0, tokens, ...rounds})),
        ...decode.map(({depth, ...rounds}) => ({name: `on: decode at ${depth}`, block: "decode", depth, tokens: decodeTokens, ...rounds}))
    ];
}

async function fill(child, depth, state) {
    try {
        await child.ask("fill", depth);
        await child.ask("save", state);
    } finally {
        await child.end();
    }
}

/** Seconds for a token with emulation and without, in each round. */
async function measure(child, {block, depth, tokens, rounds, state, reversed}) {
    const evaluate = async (strength) => {
        await child.ask("steer", strength);
        if (block === "prefill")
            await child.ask("fill", Math.min(tokens, batchSize)); // as decode does by itself: brings the weights in, makes room for graphs
        const {seconds} = await child.ask(block, tokens);
        return block === "decode"
            ? median(seconds)
            : seconds[0] / tokens;
    };
    try {
        if (depth > 0)
            await child.ask("load", state, depth);
        const contestants = {steered: () => evaluate(steeredStrength), plain: () => evaluate(0)};
        return await takeTurns(contestants, rounds, undefined, reversed);
    } finally {
        await child.end();
    }
}

function makeRow(what, {rounds}, processes, goal) {
    const all = (contestant) => median(processes.flatMap((times) => times[contestant]));
    const ratios = processes.map(({steered, plain}) => timesAsFast(steered, plain).ratio);
    return {
        what,
        unit: tokensPerSecond.unit,
        other: {name: "reattend, plain", value: tokensPerSecond.valueOf(all("plain"))},
        steered: {
            value: tokensPerSecond.valueOf(all("steered")),
            ...timesAsFast(ratios.map((ratio) => 1 / ratio), ratios.map(() => 1)),
            pairs: rounds * processes.length
        },
        goal
    };
}
