import {execFile, spawnSync} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {captureAttention, emulateAttention} from "reattend";
import {addonContextOf, bindingOf, queueOf} from "#dist/binding.js";
import type {
    AttentionCaptureOptions, AttentionEmulationTarget, CapturedAttention, CapturedRows, LlamaContext, LlamaContextSequence, Token
} from "reattend";
import {copyState} from "../support/copyState.js";
import {evaluateInChunks} from "../support/logits.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomTensors, randomText, writeRandomModel} from "../support/randomModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * What captures do to contexts, and what may be done with them. That their numbers are right is in capture-weights.test.ts.
 */

const tokens = randomTokens(90, 30) as Token[];

test.serial("logits are the same to the last bit with a capture, and after it", async (t) => {
    const evaluate = async (capture?: AttentionCaptureOptions, strength?: number) => {
        const context = await createContext();
        if (strength != null)
            emulateAttention(context, {strength});
        const sequence = context.getSequence();
        const attentionCapture = capture && captureAttention(context, capture);
        const logits = await evaluateInChunks(sequence, tokens.slice(0, 60), [50]);
        attentionCapture?.dispose();
        logits.push(...await evaluateInChunks(sequence, tokens.slice(60), [20]));
        await context.dispose();
        return logits;
    };
    for (const strength of [undefined, 0.5]) {
        const plain = await evaluate(undefined, strength);
        t.deepEqual(await evaluate({}, strength), plain);
        t.deepEqual(await evaluate({topK: 3, weights: true, hiddenStates: true, logitLens: true}, strength), plain);
    }
});

test.serial("graphs are used again, with a capture and after it", async (t) => {
    const reusedGraphs = async (way: "plain" | "captured" | "disposed") => {
        const context = await createContext();
        const capture = way === "plain"
            ? undefined
            : captureAttention(context, {topK: 2, logitLens: 2});
        if (way === "disposed")
            capture?.dispose();
        await evaluateInChunks(context.getSequence(), tokens);
        const {AddonAttentionEmulation} = bindingOf(oracleModel.llama);
        const reused = new AddonAttentionEmulation!(addonContextOf(context)).getReusedGraphs();
        await context.dispose();
        return reused;
    };
    const plain = await reusedGraphs("plain");
    t.is(await reusedGraphs("disposed"), plain);
    t.is(await reusedGraphs("captured"), plain);
});

test.serial("a capture knows its options and whether it is disposed", async (t) => {
    const context = await createContext();
    emulateAttention(context, {threshold: 0.03, sourceLayer: 2});
    const capture = captureAttention(context, {heads: [1], logitLens: true});
    t.deepEqual(capture.options, {
        layers: [0, 1, 2, 3, 4, 5, 6, 7], heads: [1], queries: "all", topK: 0, weights: false, hiddenStates: false, logitLens: 5,
        sourceLayer: 2, threshold: 0.03
    });
    t.false(capture.disposed);
    capture.dispose();
    capture.dispose();
    t.true(capture.disposed);

    const other = captureAttention(context);
    const disposal = context.dispose();
    t.true(other.disposed);
    await disposal;
    other.dispose();
});

test.serial("a capture that has seen nothing is empty", async (t) => {
    const context = await createContext();
    const {queries, tokens, received, rowIndices} = captureAttention(context, {weights: true}).read();
    t.deepEqual([queries, tokens.length, received.length, rowIndices.length], [0, 0, 0, 0]);
    await context.dispose();
});

test.serial("two captures, what is disposed, and what can't be captured", async (t) => {
    const context = await createContext();
    const capture = captureAttention(context);
    t.throws(() => captureAttention(context), {instanceOf: Error, message: "The context has a capture already: dispose it first"});
    capture.dispose();
    const expected = {instanceOf: Error, message: "The capture is disposed"};
    t.throws(() => capture.read(), expected);
    t.throws(() => capture.clear(), expected);

    await context.dispose();
    t.throws(() => captureAttention(context), {instanceOf: Error, message: "The context is disposed, so it can't be captured"});
    for (const value of [undefined, null, 3, {}, oracleModel])
        t.throws(() => captureAttention(value as AttentionEmulationTarget), {instanceOf: TypeError, message: /^The target is /});
});

test.serial("a capture leaves no function behind on its context", async (t) => {
    for (const sequences of [1, 2]) { // with several, batching has put one there before
        const context = await createContext({sequences});
        const sequence = context.getSequence();
        const queue = queueOf(context);
        const before = Object.getOwnPropertyDescriptor(queue, "_decodeTokens");
        for (let i = 0; i < 3; i++)
            captureAttention(context, {sequence}).dispose();
        t.deepEqual(Object.getOwnPropertyDescriptor(queue, "_decodeTokens"), before, `${sequences} sequences`);

        // one that was disposed under somebody else's function stays, and neither it nor the next capture is in the way
        captureUnderAnother(context, sequence);
        const capture = captureAttention(context, {sequence});
        await sequence.evaluateWithoutGeneratingNewTokens(tokens);
        t.is(capture.read().queries, tokens.length);
        await context.dispose();
    }
});

function captureUnderAnother(context: LlamaContext, sequence: LlamaContextSequence): void {
    const queue = queueOf(context);
    const capture = captureAttention(context, {sequence});
    const captured = queue._decodeTokens.bind(queue);
    queue._decodeTokens = (request, mapLogits) => captured(request, mapLogits);
    capture.dispose();
}

test.serial("a disposed capture gives its memory back at once, or when the running batch has ended", async (t) => {
    const text = randomTokens(900, 33) as Token[];
    for (const whileRunning of [false, true]) {
        const context = await createContext({contextSize: 1024}); // rows of one batch are one allocation
        const sequence = context.getSequence();
        const capture = captureAttention(context, {weights: true});
        await sequence.evaluateWithoutGeneratingNewTokens(text);
        const bytes = 4 * capture.options.layers.length * capture.options.heads.length * text.length ** 2; // 49 MiB
        const before = process.memoryUsage.rss();
        if (whileRunning) {
            const evaluation = sequence.evaluateWithoutGeneratingNewTokens(text.slice(0, 64));
            await new Promise((resolve) => setTimeout(resolve, 2));
            capture.dispose();
            await evaluation;
        } else {
            capture.dispose();
        }
        const freed = before - process.memoryUsage.rss();
        t.true(freed > 0.8 * bytes, `${freed} of ${bytes} bytes, ${whileRunning ? "while a batch ran" : "at rest"}`);
        await context.dispose();
    }
});

test.serial("a decision context can be captured if it has one sequence", async (t) => {
    const {model} = await createContext();
    const several = await model.createDecisionContext({contextSize: 128, parallelQuestions: 2});
    t.throws(() => captureAttention(several), {
        instanceOf: TypeError,
        message: "A decision context of 2 sequences can't be captured, as it gives nobody one of them: create it with parallelQuestions: 1"
    });
    const one = await model.createDecisionContext({contextSize: 128, parallelQuestions: 1});
    t.notThrows(() => captureAttention(one).dispose());
    await Promise.all([several.dispose(), one.dispose()]);
});

test.serial("names that were not captured", async (t) => {
    const context = await createContext();
    const capture = captureAttention(context, {layers: [1, 3], topK: 1});
    await evaluateInChunks(context.getSequence(), tokens, [90]);
    const captured = capture.read();
    t.true(captured.names().includes("layers.3.attention.topKeys"));
    for (const name of captured.names())
        t.true(captured.get(name).length > 0);
    for (const name of ["layers.0.attention.entropy", "layers.1.attention.pattern", "layers.1.hiddenState", "entropy", "layers.1.toString", ""]) {
        t.throws(() => captured.get(name), {
            instanceOf: RangeError, message: new RegExp(`^Nothing of the name ${name} was captured; there are: layers.1.attention.entropy, `)
        });
    }
    await context.dispose();
});

test.serial("a sequence of several is captured alone", async (t) => {
    const captureOf = async (sequences: number, others: number) => {
        const context = await createContext({sequences});
        const all = Array.from({length: sequences}, () => context.getSequence());
        const captured = all.at(-1)!;
        const capture = captureAttention(context, {sequence: captured, weights: true});
        await Promise.all(all.map((sequence, i) => (
            evaluateInChunks(sequence, sequence === captured ? tokens : randomTokens(others, i), [40, 1, 30])
        )));
        const result = capture.read();
        await context.dispose();
        return result;
    };
    const alone = await captureOf(1, 0);
    const among = await captureOf(3, 70);
    t.is(among.queries, tokens.length);
    t.deepEqual(among.tokens, alone.tokens);
    for (const [i, weight] of among.weights!.entries())
        t.true(Math.abs(weight - alone.weights![i]!) < 2e-3, `weight ${i}`); // batches of other shapes round otherwise
    const first = alone.weights!.length / alone.layers.length;
    for (let i = 0; i < first; i++)
        t.true(Math.abs(among.weights![i]! - alone.weights![i]!) < 1e-5, `weight ${i} of layer 0`);
});

test.serial("which sequence is captured has to be said, and must be a live one of the context", async (t) => {
    const context = await createContext({sequences: 2});
    t.throws(() => captureAttention(context), {
        instanceOf: TypeError, message: "sequence is not given, but must be, as the context has 2 sequences"
    });
    t.throws(() => captureAttention(context, {sequence: "a" as unknown as LlamaContextSequence}), {instanceOf: TypeError});

    const other = await createContext();
    t.throws(() => captureAttention(context, {sequence: other.getSequence()}), {
        instanceOf: Error, message: "The sequence belongs to another context than the capture"
    });

    const sequence = context.getSequence();
    const capture = captureAttention(context, {sequence});
    await sequence.dispose();
    t.true(capture.disposed);
    t.throws(() => captureAttention(context, {sequence}), {instanceOf: Error, message: "The sequence is disposed"});
    await Promise.all([context.dispose(), other.dispose()]);
});

test.serial("tokens that were evaluated before are keys, and known", async (t) => {
    const whole = await captureAfter(0, false);
    for (const isGiven of [true, false]) {
        const later = await captureAfter(50, isGiven);
        t.is(later.queries, 40);
        t.deepEqual(Array.from(later.tokens), tokens);
        t.deepEqual(later.rowIndices, whole.rowIndices.subarray(50));

        const width = 90;
        for (let head = 0; head < later.heads.length; head++) {
            const rows = later.weights!.subarray(head * 40 * width, (head + 1) * 40 * width);
            const expected = whole.weights!.subarray((head * 90 + 50) * width, (head + 1) * 90 * width);
            for (const [i, weight] of rows.entries())
                t.true(Math.abs(weight - expected[i]!) < 1e-5);

            const mass = later.classMass.subarray(4 * head, 4 * head + 4).reduce((a, b) => a + b, 0);
            t.true(Math.abs(mass - 1) < 1e-5);
        }
    }
});

async function captureAfter(count: number, isGiven: boolean): Promise<CapturedAttention> {
    const context = await createContext();
    const sequence = context.getSequence();
    await evaluateInChunks(sequence, tokens.slice(0, count), [count]);
    const capture = captureAttention(context, {layers: [0], weights: true, ...isGiven && {sequence}});
    await evaluateInChunks(sequence, tokens.slice(count), [tokens.length - count]);
    const captured = capture.read();
    await context.dispose();
    return captured;
}

type Change = {
    name: string,
    change: (sequence: LlamaContextSequence, other: LlamaContextSequence) => Promise<unknown>,

    /** what the sequence holds then, made of the 60 tokens that it held */
    expected: (held: readonly Token[]) => readonly Token[]
};

const otherTokens = randomTokens(60, 31) as Token[];
const changes: Change[] = [
    {
        name: "tokens that moved, as some before them were erased",
        change: (sequence) => sequence.eraseContextTokenRanges([{start: 2, end: 8}]),
        expected: (held) => [...held.slice(0, 2), ...held.slice(8)]
    },
    {
        name: "a loaded state",
        async change(sequence, other) {
            const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
            const file = path.join(folder, "state");
            await evaluateInChunks(other, otherTokens, [60]);
            await other.saveStateToFile(file);
            await sequence.loadStateFromFile(file, {acceptRisk: true});
            await fs.rm(folder, {recursive: true});
        },
        expected: () => otherTokens
    },
    {
        name: "a copied state",
        async change(sequence, other) {
            await evaluateInChunks(other, otherTokens, [60]);
            await copyState(sequence, other);
        },
        expected: () => otherTokens
    }
];
for (const {name, change, expected} of changes) {
    test.serial(`a capture begins anew with ${name}`, async (t) => {
        const context = await createContext({sequences: 2});
        const [sequence, other] = [context.getSequence(), context.getSequence()];
        const capture = captureAttention(context, {sequence, layers: [0], topK: 1});
        await evaluateInChunks(sequence, tokens.slice(0, 60), [60]);
        await change(sequence, other);
        await evaluateInChunks(sequence, tokens.slice(60, 63), [2, 1]);

        const now = [...expected(tokens.slice(0, 60)), ...tokens.slice(60, 63)];
        const {queries, rowIndices, tokens: ids, received} = capture.read();
        t.deepEqual(Array.from(ids), now);
        t.is(queries, 3);
        t.deepEqual(Array.from(rowIndices), [now.length - 3, now.length - 2, now.length - 1]);
        t.is(received.length, capture.options.heads.length * now.length);
        await context.dispose();
    });
}

test.serial("a capture knows the tokens of a context that has shifted", async (t) => {
    const context = await createContext({contextSize: 256, batchSize: 64});
    const capture = captureAttention(context, {layers: [0]});
    const sequence = context.getSequence();
    const text = [oracleModel.tokens.bos!, ...randomTokens(700, 32) as Token[]]; // which stays where it is
    await sequence.evaluateWithoutGeneratingNewTokens(text, {contextShift: {size: 100}});
    const {queries, tokens: ids} = capture.read();
    t.true(sequence.contextTokens.length < 256);
    t.deepEqual(Array.from(ids), sequence.contextTokens);
    t.true(queries < 256, `${queries} rows`);
    await context.dispose();
});

test.serial("what is evaluated in place of tokens that were taken back starts anew", async (t) => {
    const context = await createContext();
    const sequence = context.getSequence();
    const capture = captureAttention(context, {topK: 1});
    await evaluateInChunks(sequence, tokens.slice(0, 60), [60]);
    await sequence.eraseContextTokenRanges([{start: 40, end: 60}]);
    await evaluateInChunks(sequence, tokens.slice(60), [30]);
    const {queries, rowIndices, tokens: ids, receivedBy, heads, layers} = capture.read();
    t.is(queries, 30);
    t.deepEqual(Array.from(rowIndices), Array.from({length: 30}, (_, i) => 40 + i));
    t.deepEqual(Array.from(ids), [...tokens.slice(0, 40), ...tokens.slice(60)]);
    t.is(receivedBy.length, layers.length * heads.length * 70);

    capture.clear();
    t.is(capture.read().queries, 0);
    await evaluateInChunks(sequence, tokens.slice(0, 5), [5]);
    t.is(capture.read().queries, 5);
    await context.dispose();
});

test.serial("rows are given batch by batch, and the next batch waits", async (t) => {
    const context = await createContext({batchSize: 20});
    const parts: CapturedRows[] = [];
    let isTaking = false;
    const capture = captureAttention(context, {
        topK: 3, layers: [4], weights: true,
        async onRows(rows) {
            t.false(isTaking);
            isTaking = true;
            await new Promise((resolve) => setTimeout(resolve, 5));
            parts.push(rows);
            isTaking = false;
        }
    });
    const sequence = context.getSequence();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens);
    t.is(parts.length, 5);
    t.deepEqual(parts.flatMap(({rowIndices}) => Array.from(rowIndices)), tokens.map((_, i) => i));
    t.deepEqual(parts.map(({tokenCount}) => tokenCount), [20, 40, 60, 80, 90]);
    for (const {weights, heads, rowIndices, tokenCount} of parts)
        t.is(weights!.length, heads.length * rowIndices.length * tokenCount);
    t.is(capture.read().rowIndices.length, 0);
    t.is(capture.read().queries, tokens.length);

    const whole = await topKeysAtOnce();
    const heads = capture.options.heads.length;
    for (let head = 0; head < heads; head++) {
        const keys = parts.flatMap(({topKeys, rowIndices: {length}}) => (
            Array.from(topKeys.subarray(head * length * 3, (head + 1) * length * 3))
        ));
        const expected = Array.from(whole.subarray(head * tokens.length * 3, (head + 1) * tokens.length * 3));
        const same = keys.filter((key, i) => key === expected[i]).length;
        t.true(same >= 0.97 * expected.length, `${same} of ${expected.length}`); // weights that are as good as equal change places
    }
    await context.dispose();
});

async function topKeysAtOnce(): Promise<Uint32Array> {
    const context = await createContext();
    const capture = captureAttention(context, {topK: 3, layers: [4]});
    await context.getSequence().evaluateWithoutGeneratingNewTokens(tokens);
    const {topKeys} = capture.read();
    await context.dispose();
    return topKeys;
}

test.serial("what onRows throws is thrown by the next evaluation or by read, and the context goes on", async (t) => {
    for (const how of ["evaluate", "read"] as const) {
        const context = await createContext({batchSize: 30});
        let calls = 0;
        const capture = captureAttention(context, {
            topK: 1,
            onRows() {
                calls++;
                throw new Error("the disk is full");
            }
        });
        const sequence = context.getSequence();
        await sequence.evaluateWithoutGeneratingNewTokens(tokens);
        t.is(calls, 1);

        const expected = {message: "the disk is full"};
        if (how === "evaluate")
            await t.throwsAsync(sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 10)), expected);
        else
            t.throws(() => capture.read(), expected);
        t.true(capture.disposed);
        await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 20));
        t.is(sequence.contextTokens.length, tokens.length + 20);
        await context.dispose();
    }
});

test.serial("rows that take too much memory are refused, and the context goes on", async (t) => {
    const context = await createContext();
    const capture = captureAttention(context, {topK: 65536});
    const sequence = context.getSequence();
    await sequence.evaluateWithoutGeneratingNewTokens([...tokens, ...tokens]);
    t.throws(() => capture.read(), {message: /^The rows to keep take more than 1 GiB: choose fewer layers/});
    capture.clear();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 1));
    t.is(capture.read().rowIndices.length, 1);
    await context.dispose();
});

test.serial("what is read while batches are evaluated is of one moment", async (t) => {
    const context = await createContext({contextSize: 1024, batchSize: 64, threads: 1});
    const capture = captureAttention(context, {topK: 1});
    let evaluating = true;
    const evaluated = context.getSequence().evaluateWithoutGeneratingNewTokens(randomTokens(1000, 35) as Token[]).finally(() => {
        evaluating = false;
    });
    const seen = new Set<number>();
    while (evaluating) {
        const {layers, heads, tokenCount, received, queries, rowIndices} = capture.read();
        t.is(received.length, layers.length * heads.length * tokenCount);
        t.is(queries, rowIndices.length);
        seen.add(tokenCount);
        await new Promise(setImmediate);
    }
    await evaluated;
    t.true(seen.size > 3, [...seen].join(", "));
    await context.dispose();
});

test.serial("rows that emulation turns off have no entropy", async (t) => {
    for (const flashAttention of [true, false]) {
        const context = await createContext({flashAttention});
        emulateAttention(context, {pattern: "all", strength: -1, schedule: "constant"});
        const capture = captureAttention(context, {layers: [1]});
        await evaluateInChunks(context.getSequence(), tokens);
        const {entropy, firstTokenMass} = capture.read();
        t.deepEqual([...entropy, ...firstTokenMass], [0, 0, 0, 0]);
        await context.dispose();
    }
});

const canLimitMemory = process.platform === "linux" && spawnSync("prlimit", ["--version"]).status === 0;
const withoutMemory = `rows that there is no memory for are an error, and what was captured before is still there${
    canLimitMemory ? "" : " [skipped: there is no prlimit here]"
}`;
(canLimitMemory ? test.serial : test.serial.skip)(withoutMemory, async (t) => {
    const script = fileURLToPath(new URL("../support/captureWithoutMemory.js", import.meta.url));
    const {stdout} = await promisify(execFile)(process.execPath, [script]);
    t.deepEqual(JSON.parse(stdout), {
        evaluated: "There is not enough memory for what the context's capture keeps of this batch: choose fewer layers, heads or queries, " +
            "or take rows away with onRows",
        afterFailure: 3,
        goesOn: 5,
        read: "There is not enough memory to read what was captured: choose fewer layers, heads or queries, or take rows away with onRows",
        rows: 1500
    });
});

test.serial("rows that are no numbers are captured as such", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    const modelPath = path.join(folder, "model.gguf");
    const options = {architecture: "llama", layers: 2, seed: 15} as const;
    const tensors = randomTensors(options);
    const broken = 200 as Token;
    const {shape: [width], values} = tensors.get("token_embd.weight")!;
    values.fill(NaN, broken * width!, (broken + 1) * width!);
    await writeRandomModel(modelPath, options, tensors);
    const model = await oracleModel.llama.loadModel({modelPath});
    const text = randomText(100, 15).filter((token) => token !== broken) as Token[];

    for (const flashAttention of [true, false]) {
        const context = await model.createContext({contextSize: 256, threads: 1, flashAttention});
        const capture = captureAttention(context, {topK: 3, weights: true, hiddenStates: true, logitLens: 4});
        // a batch of its own, as a value that is no number spoils rows that give it a weight of 0, too
        await evaluateInChunks(context.getSequence(), [...text.slice(0, 40), broken, ...text.slice(41)], [40, 60]);
        const {logitLens, hiddenStates, topWeights, entropy, rowIndices} = capture.read();
        t.true(entropy.every((value) => Number.isNaN(value)));
        t.is(rowIndices.length, text.length);
        for (const layer of [0, 1]) {
            for (const [row] of text.entries()) {
                const index = layer * text.length + row;
                t.is(Number.isNaN(hiddenStates![index * width!]), row >= 40, `row ${row} of layer ${layer}`);
                for (const k of [0, 1, 2, 3]) {
                    t.is(logitLens!.tokens[4 * index + k] === 0xffffffff, row >= 40, `row ${row} of layer ${layer}`);
                    t.is(Number.isNaN(logitLens!.logProbabilities[4 * index + k]), row >= 40);
                }
            }
        }
        t.true(topWeights.some((weight) => Number.isNaN(weight)));
        await context.dispose();
    }
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

test.serial("memory stays small for a long text", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    const modelPath = path.join(folder, "model.gguf");
    await writeRandomModel(modelPath, {architecture: "llama", layers: 2, seed: 12});
    const model = await oracleModel.llama.loadModel({modelPath});
    const length = 8192;
    const text = randomText(length, 12) as Token[];

    const growth = async (withCapture: boolean) => {
        const context = await model.createContext({
            contextSize: length + 1, batchSize: 512, threads: 2, flashAttention: true, failedCreationRemedy: false
        });
        const sequence = context.getSequence();
        await sequence.evaluateWithoutGeneratingNewTokens(text.slice(0, 512));
        const before = process.memoryUsage.rss();
        let rows = 0;
        const capture = withCapture
            ? captureAttention(context, {
                topK: 8,
                onRows(part) {
                    rows += part.rowIndices.length;
                }
            })
            : undefined;
        let peak = before;
        for (let start = 512; start < length; start += 512) {
            await sequence.evaluateWithoutGeneratingNewTokens(text.slice(start, start + 512));
            peak = Math.max(peak, process.memoryUsage.rss());
        }
        if (capture != null) {
            t.is(rows, length - 512);
            t.is(capture.read().queries, length - 512);
        }
        await context.dispose();
        return (peak - before) / 1024 ** 2;
    };
    const [plain, captured] = [await growth(false), await growth(true)];
    t.log(`${captured.toFixed(0)} MiB with a capture, ${plain.toFixed(0)} MiB without`);
    t.true(captured - plain < 48); // a single head's weights would be 256 MiB
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});
