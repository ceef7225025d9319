// Does something many times: node memoryOfRounds.js "decodes" | "contexts" ROUNDS
// writes by how many bytes the process grew, and the logits at the end, as JSON to standard output.
import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";
import {emulateAttention} from "reattend";
import {evaluateAtOnce, evaluateInChunks} from "./logits.js";
import {createContext} from "./oracleModel.js";
import {randomTokens} from "./tokens.js";

v8.setFlagsFromString("--expose-gc");
const collectGarbage = vm.runInNewContext("gc") as () => void;

const [kind, rounds] = process.argv.slice(2) as [string, string];
const tokens = randomTokens(40, 16);
const result = kind === "decodes"
    ? await decode(Number(rounds))
    : await createContexts(Number(rounds));
process.stdout.write(JSON.stringify({...result, logits: result.logits.map((row) => [...row])}), () => process.exit());

/** Decodes two sequences, with the strength changed at each and in between. */
async function decode(decodes: number): Promise<{growth: number, changes: number, logits: Float32Array[]}> {
    const context = await createContext({sequences: 2, threads: 2});
    const emulation = emulateAttention(context);
    const sequences = [context.getSequence(), context.getSequence()];

    // strengths change while a batch is evaluated too
    let changes = 0;
    const timer = setInterval(() => {
        emulation.strength = changes++ % 11 / 10;
    }, 1);

    const growth = await growthOf(decodes, async (i) => {
        emulation.setSequenceStrength(sequences[1]!, i % 7 === 0 ? undefined : i % 13 / 10 - 0.3);
        const logits = await Promise.all(sequences.map((sequence) => evaluateAtOnce(sequence, [tokens[i % tokens.length]!])));
        if (!logits.every(([row]) => row!.every(Number.isFinite)))
            throw new Error(`Decode ${i} gave logits that are not finite`);
    });
    clearInterval(timer);

    emulation.strength = 0.5;
    emulation.setSequenceStrength(sequences[1]!, undefined);
    await sequences[1]!.clearHistory();
    return {growth, changes, logits: await evaluateInChunks(sequences[1]!, tokens, [20])};
}

/** Makes contexts, of which some are disposed and the others dropped. */
async function createContexts(contexts: number): Promise<{growth: number, logits: Float32Array[]}> {
    const growth = await growthOf(contexts, async (i) => {
        const context = await createContext({sequences: 1 + i % 3, flashAttention: i % 2 === 0});
        const emulation = emulateAttention(context, {strength: 0.5, normalize: i % 5 === 0});
        await evaluateInChunks(context.getSequence(), tokens, [30]);
        emulation.report();

        if (i % 4 === 0)
            emulation.dispose();
        if (i % 3 !== 0)
            await context.dispose();
        collectGarbage();
    });

    const context = await createContext();
    emulateAttention(context, {strength: 0.5});
    return {growth, logits: await evaluateInChunks(context.getSequence(), tokens, [20])};
}

/** By how many bytes the process grows from a fourth of the rounds to the last. */
async function growthOf(rounds: number, round: (index: number) => Promise<void>): Promise<number> {
    let before = 0;
    for (let i = 0; i < rounds; i++) {
        if (i === Math.floor(rounds / 4))
            before = await usedBytes();
        await round(i);
    }
    return await usedBytes() - before;
}

/** Memory of the process, without what the JavaScript heap has set aside but does not use. */
async function usedBytes(): Promise<number> {
    for (let i = 0; i < 3; i++) {
        collectGarbage();
        await new Promise((resolve) => setTimeout(resolve, 20)); // finalizers run between
    }
    const {rss, heapTotal, heapUsed} = process.memoryUsage();
    return rss - heapTotal + heapUsed;
}
