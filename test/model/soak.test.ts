import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";
import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateAtOnce, evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";

/*
 * Long use leaks nothing, crashes nothing and stays right. `npm run test:soak` runs it in full.
 */

const full = process.argv.includes("--full");
const decodes = full ? 10_000 : 600;
const contexts = full ? 200 : 20;

// a leaking context is some megabytes; up to half of this much comes and goes with a fresh process
const allowedGrowth = 12 * 1024 ** 2;

v8.setFlagsFromString("--expose-gc");
const collectGarbage = vm.runInNewContext("gc") as () => void;

const tokens = randomTokens(40, 16);
const reference = await ReferenceLlama.read(oracleModelPath);

test.serial(`${decodes} decodes of two sequences, the strength changed at each and in between`, async (t) => {
    const context = await createContext({sequences: 2, threads: 2});
    const emulation = emulateAttention(context);
    const sequences = [context.getSequence(), context.getSequence()];

    // strengths change while a batch is evaluated too
    let changes = 0;
    const timer = setInterval(() => {
        emulation.strength = changes++ % 11 / 10;
    }, 1);

    const memory = await levelOf(decodes, async (i) => {
        emulation.setSequenceStrength(sequences[1]!, i % 7 === 0 ? undefined : i % 13 / 10 - 0.3);
        const logits = await Promise.all(sequences.map((sequence) => evaluateAtOnce(sequence, [tokens[i % tokens.length]!])));
        if (!logits.every(([row]) => row!.every(Number.isFinite)))
            throw new Error(`Decode ${i} gave logits that are not finite`);
    });
    clearInterval(timer);
    t.log(`memory grew by ${memory} bytes, ${changes} changes by the timer`);
    t.true(memory <= allowedGrowth, `memory grew by ${memory} bytes`);
    t.true(changes > 0);

    await isRight(t, async () => {
        emulation.strength = 0.5;
        emulation.setSequenceStrength(sequences[1]!, undefined);
        await sequences[1]!.clearHistory();
        return await evaluateInChunks(sequences[1]!, tokens, [20]);
    });
    await context.dispose();
});

test.serial(`${contexts} contexts made, emulated, and disposed or dropped`, async (t) => {
    const memory = await levelOf(contexts, async (i) => {
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
    t.log(`memory grew by ${memory} bytes`);
    t.true(memory <= allowedGrowth, `memory grew by ${memory} bytes`);

    const context = await createContext();
    await isRight(t, async () => {
        emulateAttention(context, {strength: 0.5});
        return await evaluateInChunks(context.getSequence(), tokens, [20]);
    });
    await context.dispose();
});

test.serial("a context can be disposed while it decodes", async (t) => {
    for (let i = 0; i < 20; i++) {
        const context = await createContext();
        const emulation = emulateAttention(context, {strength: 0.5});
        const evaluation = evaluateInChunks(context.getSequence(), tokens, [30]);
        await new Promise((resolve) => setTimeout(resolve, i % 5));
        const disposal = context.dispose();
        t.true(emulation.disposed);
        await Promise.allSettled([evaluation, disposal]);
    }
    t.false(oracleModel.disposed);
});

async function isRight(
    t: {true(value: boolean, message: string): void}, evaluate: () => Promise<Float32Array[]>
): Promise<void> {
    const expected = reference.logits(tokens, {
        strength: 0.5,
        threshold: 0.01,
        sourceLayer: 0,
        gain: linearGain(reference.layerCount),
        pattern: "early-layer",
        normalize: false
    });
    const error = worstNmse(await evaluate(), expected);
    t.true(error <= allowedNmse, `NMSE ${error}`);
}

/** By how many bytes the process grows from a fourth of the rounds to the last. */
async function levelOf(rounds: number, round: (index: number) => Promise<void>): Promise<number> {
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
