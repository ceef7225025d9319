import {execFile} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions, LlamaModel, Token} from "reattend";
import {copyState} from "../support/copyState.js";
import {compareWithDense} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";

/*
 * What a sequence keeps is not touched by emulation: files of its state, copies, erased and shifted tokens, reused prefixes.
 */

const continueFromState = fileURLToPath(new URL("../support/continueFromState.js", import.meta.url));
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});

// one cache, and two of which one has a window
const models: Array<{name: string, modelPath: string, model: LlamaModel}> = [];
for (const [name, options] of [
    ["llama", {architecture: "llama", layers: 4, seed: 1}],
    ["gemma3", {architecture: "gemma3", layers: 8, seed: 1, window: 40}]
] as const) {
    const modelPath = path.join(folder, `${name}.gguf`);
    await writeRandomModel(modelPath, options);
    models.push({name, modelPath, model: await llama.loadModel({modelPath})});
}

test.after.always(async () => {
    await Promise.all(models.map(({model}) => model.dispose()));
    await fs.rm(folder, {recursive: true});
});

const tokens = randomText(350, 11);
const [start, rest] = [tokens.slice(0, 300), tokens.slice(300)];
const strength = 0.5;
const emulation = {strength, threshold: clearThreshold};

for (const {name, modelPath, model} of models) {
    test.serial(`${name}: an evaluation goes on from a saved state as if it had not stopped, here and in another process`, async (t) => {
        const [withEmulation, without] = ["with", "without"].map((kind) => path.join(folder, `${name}-${kind}`)) as [string, string];

        const {context, sequence} = await createSequence(model, emulation, 2);
        await evaluateInChunks(sequence, start, [64, 150, 86]);
        const {fileSize} = await sequence.saveStateToFile(withEmulation);
        const expected = await evaluateInChunks(sequence, rest, [10]);

        const loaded = context.getSequence();
        await loaded.loadStateFromFile(withEmulation, {acceptRisk: true});
        t.is(worstNmse(await evaluateInChunks(loaded, rest, [10]), expected), 0);
        await context.dispose();

        const {stdout} = await promisify(execFile)(process.execPath, [
            continueFromState, modelPath, withEmulation, `${strength}`, JSON.stringify(rest)
        ], {encoding: "buffer", maxBuffer: 2 ** 24});
        const values = new Float32Array(new Uint8Array(stdout).buffer);
        t.is(values.length, rest.length * expected[0]!.length);
        t.is(worstNmse(rest.map((_, i) => values.subarray(i * expected[0]!.length, (i + 1) * expected[0]!.length)), expected), 0);

        // nothing of it is kept
        const plain = await createSequence(model, undefined, 2);
        await evaluateInChunks(plain.sequence, start, [64, 150, 86]);
        t.is((await plain.sequence.saveStateToFile(without)).fileSize, fileSize);
        t.true(worstNmse(await evaluateInChunks(plain.sequence, rest, [10]), expected) > 1e-3, "the case would not show a mistake");
        await plain.context.dispose();
    });

    test.serial(`${name}: a copied sequence goes on as the one it was copied from`, async (t) => {
        const {context, sequence} = await createSequence(model, emulation, 2);
        await evaluateInChunks(sequence, start, [64, 150, 86]);
        const copy = context.getSequence();
        t.true(await copyState(copy, sequence));
        const expected = await evaluateInChunks(sequence, rest, [10]);
        t.is(worstNmse(await evaluateInChunks(copy, rest, [10]), expected), 0);
        await context.dispose();
    });

    test.serial(`${name}: a prefix that is there already is used again`, async (t) => {
        const {context, sequence} = await createSequence(model, emulation);
        await evaluateInChunks(sequence, start, [64, 150, 86]);
        // a window's cells can't be taken back: where there is one, node-llama-cpp takes checkpoints
        await sequence.takeCheckpoint();
        const expected = await evaluateInChunks(sequence, rest, [10]);

        await sequence.adaptStateToTokens([...start, ...randomText(20, 12)] as Token[], false);
        t.is(sequence.nextTokenIndex, start.length);
        await evaluateInChunks(sequence, randomText(20, 12), [7]);
        await sequence.adaptStateToTokens(start as Token[], false);
        t.is(sequence.nextTokenIndex, start.length);
        t.is(worstNmse(await evaluateInChunks(sequence, rest, [10]), expected), 0);
        await context.dispose();
    });

    // tokens in the midst are removed, and what comes after them moves: that has no other truth than the dense form
    test.serial(`${name}: ranges of tokens are erased`, async (t) => {
        await compareWithDense(t, async (options) => {
            const {context, sequence} = await createSequence(model, options);
            await evaluateInChunks(sequence, start, [64, 150, 86]);
            await sequence.eraseContextTokenRanges([{start: 20, end: 70}, {start: 150, end: 151}, {start: 280, end: 300}]);
            t.is(sequence.nextTokenIndex, 229);
            const logits = await evaluateInChunks(sequence, rest, [10]);
            await context.dispose();
            return logits;
        });
    });

    test.serial(`${name}: a context that is full shifts`, async (t) => {
        await compareWithDense(t, async (options) => {
            const {context, sequence} = await createSequence(model, options);
            const many = [...tokens, ...randomText(251, 13).slice(1)];
            const logits = await evaluateInChunks(sequence, many, [150, 150, 50, 120, 40, 3]);
            t.true(sequence.nextTokenIndex < many.length, "nothing was shifted");
            await context.dispose();
            return logits.slice(500);
        });
    });
}

async function createSequence(model: LlamaModel, options?: AttentionEmulationOptions, sequences = 1) {
    const context = await model.createContext({sequences, contextSize: 512, batchSize: 150, threads: 1, flashAttention: true});
    if (options != null)
        emulateAttention(context, options);
    return {context, sequence: context.getSequence()};
}
