// Sequences of a context go through the model together, with emulation and without, and their graphs are reused.
import test from "ava";
import {emulateAttention} from "reattend";
import {addonContextOf, bindingOf, idOfSequence, queueOf} from "#dist/binding.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import type {LlamaContext, PrioritizedBatchItem, Token} from "reattend";

const generated = 40;

for (const sequences of [2, 4, 8]) {
    for (const emulated of [false, true]) {
        const kind = `${sequences} sequences, ${emulated ? "emulated" : "plain"}`;

        test(`${kind}: one batch a step`, async (t) => {
            const {batches, reused, furthestBehind} = await generateInParallel(sequences, {emulated, together: true});
            t.is(batches, generated);
            t.is(reused, generated - 2); // the prompts have a graph of their own, and the first tokens build theirs
            t.true(furthestBehind <= 1, `${furthestBehind} steps behind`);
        });

        test(`${kind}: those that start apart fall into step`, async (t) => {
            const {batches, reused, furthestBehind} = await generateInParallel(sequences, {emulated, together: false});
            t.is(batches, generated + (sequences - 1) * 5); // each starts when the one before has had 5 tokens
            // a graph is built for each prompt, and where a sequence has joined the others or left them
            t.is(reused, batches - sequences - sequences - (sequences - 1));
            t.true(furthestBehind <= 1, `${furthestBehind} steps behind`);
        });
    }
}

test("firstInFirstOut: who asked first is not overtaken by sequences with smaller ids", async (t) => {
    const context = await createContext({
        sequences: 3, contextSize: 128, batchSize: 32, batching: {itemPrioritizationStrategy: "firstInFirstOut"}
    });
    const ended: number[] = [];
    const sequences = [context.getSequence(), context.getSequence(), context.getSequence()];
    await Promise.all(sequences.reverse().map(async (sequence) => {
        await sequence.evaluateWithoutGeneratingNewTokens(Array.from({length: 33}, (_, i) => 5 + i as Token));
        ended.push(idOfSequence(sequence));
    }));
    t.deepEqual(ended, [2, 1, 0]);
    await context.dispose();
});

test("what is chosen goes into a batch in the order of ids, and no more than fits", async (t) => {
    const context = await createContext({sequences: 3, contextSize: 128, batchSize: 32, batching: {
        itemPrioritizationStrategy: ({items}) => items.map((item) => ({item, processAmount: 31}))
    }});
    const tokens = Array.from({length: 31}, (_, i) => 5 + i as Token);
    const parts: Array<[sequenceId: number, tokens: number]> = [];
    await Promise.all([2, 1, 0].map((sequenceId) => queueOf(context)._decodeTokens(
        {sequenceId, tokens, firstTokenSequenceIndex: 0, logits: tokens.map(() => true)},
        (place) => {
            if (place === 0 || parts.at(-1)?.[0] !== sequenceId)
                parts.push([sequenceId, 0]);
            parts.at(-1)![1]++;
        }
    )));
    t.deepEqual(parts, [[1, 1], [2, 31], [0, 2], [1, 30], [0, 29]]);
    await context.dispose();
});

const bogus: Array<[name: string, choice: (item: object) => unknown, error: typeof TypeError | typeof RangeError, message: string]> = [
    ["nothing", () => undefined, TypeError,
        "itemPrioritizationStrategy returned undefined, but must return an array of objects with item and processAmount"],
    ["no item", () => [{}], TypeError,
        "itemPrioritizationStrategy returned item undefined, but must return the very objects of items that it is given"],
    ["null", () => [null], TypeError,
        "itemPrioritizationStrategy returned item undefined, but must return the very objects of items that it is given"],
    ["a copy", (item) => [{item: {...item}, processAmount: 1}], TypeError,
        "itemPrioritizationStrategy returned item an object, but must return the very objects of items that it is given"],
    ["no amount", (item) => [{item}], TypeError, "itemPrioritizationStrategy returned processAmount undefined, but must return a number"],
    ["NaN", (item) => [{item, processAmount: NaN}], RangeError,
        "itemPrioritizationStrategy returned processAmount NaN, but must return a number of tokens"]
];
for (const [name, choice, instanceOf, message] of bogus) {
    test(`a strategy that returns ${name} is an error of who evaluates, and the context goes on`, async (t) => {
        let isBogus = true;
        const context = await createContext({sequences: 2, contextSize: 128, batching: {
            itemPrioritizationStrategy: ({items}) => isBogus
                ? choice(items[0]!) as PrioritizedBatchItem[]
                : items.map((item) => ({item, processAmount: 1}))
        }});
        const sequence = context.getSequence();
        await t.throwsAsync(sequence.evaluateWithoutGeneratingNewTokens(prompt(0)), {instanceOf, message});
        isBogus = false;
        await t.notThrowsAsync(sequence.evaluateWithoutGeneratingNewTokens(prompt(0)));
        await context.dispose();
    });
}

async function generateInParallel(
    sequences: number, {emulated, together}: {emulated: boolean, together: boolean}
): Promise<{batches: number, reused: number, furthestBehind: number}> {
    let batches = 0;
    let furthestBehind = 0;
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
        let first: number | undefined;
        for (let tokens = 1; tokens <= generated; tokens++) {
            await generation.next();
            first ??= batches;
            // since its first token, a sequence has had one from each batch, or hears of the last one a moment late
            furthestBehind = Math.max(furthestBehind, batches - first - (tokens - 1));
            if (tokens === 5)
                resolve();
        }
        await generation.return();
    }));
    const reused = reusedGraphs(context);
    await context.dispose();
    return {batches, reused, furthestBehind};
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
