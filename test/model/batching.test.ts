// Sequences of a context go through the model together, with emulation and without, and their graphs are reused.
import test from "ava";
import {emulateAttention} from "reattend";
import {addonContextOf, bindingOf} from "#dist/binding.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import type {LlamaContext, Token} from "reattend";

const generated = 40;

for (const sequences of [2, 4, 8]) {
    for (const emulated of [false, true]) {
        test(`${sequences} sequences, ${emulated ? "emulated" : "plain"}: one batch a step`, async (t) => {
            const {batches, reused} = await generateInParallel(sequences, {emulated, together: true});
            t.is(batches, generated);
            t.is(reused, generated - 2); // the prompts have a graph of their own, and the first tokens build theirs
        });
    }
}

test("sequences that start apart fall into step", async (t) => {
    const {batches} = await generateInParallel(4, {emulated: true, together: false});
    // each starts when the one before has had 5 tokens, and no token costs a batch of its own
    t.true(batches <= generated + 3 * 6, `${batches} batches`);
});

async function generateInParallel(
    sequences: number, {emulated, together}: {emulated: boolean, together: boolean}
): Promise<{batches: number, reused: number}> {
    let batches = 0;
    const context = await createContext({
        sequences,
        contextSize: 128,
        batching: {
            itemPrioritizationStrategy: ({items}) => {
                batches++;
                return items.map((item) => ({item, processAmount: item.tokens.length}));
            }
        }
    });
    if (emulated)
        emulateAttention(context, {strength: 0.3});

    const fifthTokens = Array.from({length: sequences}, withResolver);
    await Promise.all(fifthTokens.map(async ({resolve}, index) => {
        const sequence = context.getSequence();
        if (!together && index > 0)
            await fifthTokens[index - 1]!.promise;

        const generation = sequence.evaluate(prompt(index), {temperature: 0, yieldEogToken: true});
        for (let tokens = 1; tokens <= generated; tokens++) {
            await generation.next();
            if (tokens === 5)
                resolve();
        }
        await generation.return();
    }));
    const reused = reusedGraphs(context);
    await context.dispose();
    return {batches, reused};
}

/** Of different lengths, as requests are. */
function prompt(index: number): Token[] {
    return Array.from({length: 7 + index}, (_, position) => 5 + (index * 31 + position * 7) % 90 as Token);
}

function reusedGraphs(context: LlamaContext): number {
    const {AddonAttentionEmulation} = bindingOf(oracleModel.llama);
    return new AddonAttentionEmulation!(addonContextOf(context)).getReusedGraphs();
}

function withResolver(): {promise: Promise<void>, resolve: () => void} {
    let resolve!: () => void;
    const promise = new Promise<void>((accept) => {
        resolve = accept;
    });
    return {promise, resolve};
}
