import test from "ava";
import {emulateAttention} from "reattend";
import type {LlamaContext} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {createContext} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * A context that is not changed by emulation gives the very same logits, to the last bit, as one that never had it.
 */

const tokens = randomTokens(200, 4);
const other = randomTokens(100, 5);
const sizes = [100, 1, 70, 3]; // then one by one

const ways: Array<[name: string, prepare: (context: LlamaContext) => Promise<void> | void]> = [
    ["strength 0", (context) => {
        emulateAttention(context, {strength: 0});
    }],
    ["strength 0, all keys", (context) => {
        emulateAttention(context, {strength: 0, pattern: "all"});
    }],
    ["strength 0, normalized", (context) => {
        emulateAttention(context, {strength: 0, normalize: true});
    }],
    ["strength 0, all keys, normalized", (context) => {
        emulateAttention(context, {strength: 0, pattern: "all", normalize: true});
    }],
    ["strength 0, random keys, normalized", (context) => {
        emulateAttention(context, {strength: 0, pattern: "random", normalize: true});
    }],
    ["a schedule of zeros", (context) => {
        emulateAttention(context, {strength: 1, schedule: new Float32Array(8)});
    }],
    ["strength set to 0", async (context) => {
        const emulation = emulateAttention(context, {strength: 1});
        await evaluateOthers(context);
        emulation.strength = 0;
    }],
    ["the sequence's own strength 0", async (context) => {
        const emulation = emulateAttention(context, {strength: 1});
        const sequence = context.getSequence();
        emulation.setSequenceStrength(sequence, 0);
        await evaluateInChunks(sequence, tokens.slice(0, 10), [10]);
        await sequence.dispose();
        emulation.strength = 0;
    }],
    ["disposed at once", (context) => {
        emulateAttention(context, {strength: 1}).dispose();
    }],
    ["disposed after use", async (context) => {
        const emulation = emulateAttention(context, {strength: 1});
        await evaluateOthers(context);
        emulation.dispose();
    }],
    ["disposed after its report", (context) => {
        const emulation = emulateAttention(context, {strength: 1});
        emulation.report();
        emulation.dispose();
    }],
    ["disposed, and attached again with strength 0", async (context) => {
        const emulation = emulateAttention(context, {strength: 1, pattern: "all", normalize: true});
        await evaluateOthers(context);
        emulation.dispose();
        emulateAttention(context, {strength: 0});
    }]
];

for (const flashAttention of [true, false]) {
    for (const threads of [1, 2]) {
        test.serial(`flash attention ${flashAttention}, ${threads} threads`, async (t) => {
            const logitsAfter = async (prepare: (context: LlamaContext) => Promise<void> | void) => {
                const context = await createContext({flashAttention, threads});
                await prepare(context);
                const logits = await evaluateInChunks(context.getSequence(), tokens, sizes);
                await context.dispose();
                return logits;
            };

            const never = await logitsAfter(() => {});
            for (const [name, prepare] of ways)
                t.deepEqual(await logitsAfter(prepare), never, name);

            const on = await logitsAfter((context) => {
                emulateAttention(context, {strength: 0.01});
            });
            t.notDeepEqual(on, never, "emulation that is on changes nothing");
        });
    }
}

/** Leaves no trace but for what emulation itself may leave. */
async function evaluateOthers(context: LlamaContext): Promise<void> {
    const sequence = context.getSequence();
    await evaluateInChunks(sequence, other, [64]);
    await sequence.dispose();
}
