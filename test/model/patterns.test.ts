import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions, LlamaContextOptions, LlamaModel} from "reattend";
import {compareWithDense, roundingNmse} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";
import type {Architecture} from "../support/randomModel.js";

/*
 * The patterns "random" and "first-token" wherever tokens are spread over caches and sequences. test/oracle compares them with the
 * formula. What they choose follows from positions, not from cells, so any batches and any neighbours give the same.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});

async function loadModel(architecture: Architecture, layers: number, window?: number): Promise<LlamaModel> {
    const modelPath = path.join(folder, `${architecture}.gguf`);
    await writeRandomModel(modelPath, {architecture, layers, seed: 1, window});
    return await llama.loadModel({modelPath});
}

const model = await loadModel("llama", 3);
const windowed = await loadModel("gemma3", 8, 40);
const tokens = randomText(300, 1);

// hooks and tests are declared together, after whatever had to be waited for
test.after.always(async () => {
    await llama.dispose();
    await fs.rm(folder, {recursive: true});
});

async function evaluate(
    ofModel: LlamaModel, options: AttentionEmulationOptions | undefined, chunks: number[], contextOptions: LlamaContextOptions = {}
): Promise<Float32Array[]> {
    const context = await ofModel.createContext({contextSize: 512, batchSize: 300, threads: 1, flashAttention: true, ...contextOptions});
    if (options != null)
        emulateAttention(context, options);
    const logits = await evaluateInChunks(context.getSequence(), tokens, chunks);
    await context.dispose();
    return logits;
}

const emulations: AttentionEmulationOptions[] = [
    {pattern: "random"},
    {pattern: "random", normalize: true, seed: 7},
    {pattern: "first-token", strength: 3},
    {pattern: "first-token", normalize: true, strength: -0.9, schedule: "constant"}
];
for (const emulation of emulations) {
    const name = JSON.stringify(emulation);

    test.serial(`${name}: fused as dense, in any chunks`, async (t) => {
        const {scale, expected} = await compareWithDense(t, (options) => evaluate(model, options, [300]), emulation);
        const plain = await evaluate(model, undefined, [300]);
        for (const chunks of [[130, 7, 70, 1, 64], [100]]) {
            // batches of other sizes are computed in other ways, with emulation or without
            const scaleOfChunks = Math.max(scale, worstNmse(await evaluate(model, undefined, chunks), plain));
            const error = worstNmse(await evaluate(model, {strength: 0.5, threshold: clearThreshold, ...emulation}, chunks), expected);
            t.log(`in chunks: NMSE ${error.toExponential(1)}, without emulation ${scaleOfChunks.toExponential(1)}`);
            t.true(error <= 5 * scaleOfChunks, `NMSE ${error}`);
        }
    });

    test.serial(`${name}: a window that leaves the first token behind`, async (t) => {
        for (const swaFullCache of [false, true]) {
            const evaluateWindowed = (chunks: number[], batchSize: number) => (options?: AttentionEmulationOptions) => (
                evaluate(windowed, options, chunks, {batchSize, swaFullCache})
            );
            const {scale, expected} = await compareWithDense(t, evaluateWindowed([130, 7, 70, 1, 64], 130), emulation);
            const options = {strength: 0.5, threshold: clearThreshold, ...emulation};
            const error = worstNmse(await evaluateWindowed([300], 300)(options), expected);
            t.true(error <= 5 * scale, `in one batch: NMSE ${error}`);
        }
    });

    test.serial(`${name}: sequences together as alone`, async (t) => {
        const options = {strength: 0.5, threshold: clearThreshold, ...emulation};
        const texts = [randomText(90, 2), randomText(70, 3)];
        const contextOptions = {contextSize: 256, batchSize: 512, threads: 1, flashAttention: true};

        const together = await model.createContext({...contextOptions, sequences: 2});
        emulateAttention(together, options);
        const logits = await Promise.all(texts.map((text) => evaluateInChunks(together.getSequence(), text, [60])));
        await together.dispose();

        for (const [i, text] of texts.entries()) {
            const alone = await model.createContext(contextOptions);
            emulateAttention(alone, options);
            const error = worstNmse(logits[i]!, await evaluateInChunks(alone.getSequence(), text, [60]));
            t.true(error <= 5 * roundingNmse, `NMSE ${error}`);
            await alone.dispose();
        }
    });
}

test.serial("random patterns: a seed is another pattern", async (t) => {
    const options = {strength: 1, threshold: clearThreshold, pattern: "random"} as const;
    const one = await evaluate(model, options, [300]);
    t.is(worstNmse(await evaluate(model, {...options, seed: 0}, [300]), one), 0);
    t.true(worstNmse(await evaluate(model, {...options, seed: 1}, [300]), one) > 1e-4);
});

test.serial("after a shift of the context the first token is the one that is left", async (t) => {
    const context = await model.createContext({contextSize: 512, batchSize: 300, threads: 1, flashAttention: true});
    const emulation = emulateAttention(context, {pattern: "first-token", strength: 0});
    const sequence = context.getSequence();
    const continueFrom = async (start: readonly number[], erased: number, strength: number) => {
        await sequence.clearHistory();
        emulation.strength = 0;
        await evaluateInChunks(sequence, start, [100]);
        await sequence.eraseContextTokenRanges([{start: 0, end: erased}]);
        emulation.strength = strength;
        return await evaluateInChunks(sequence, tokens.slice(100, 110), [10]);
    };
    // every head thinks much of token 1 and nothing of token 5; of all others half of the heads do, so that a boost of another shows
    const sought = Array.from({length: 100}, (_, i) => 3 + 4 * (i % 2) + 10 * (i % 20 + 1));
    const effectOf = async (first: number, erased = 40) => {
        const start = [...sought.slice(0, 40), first, ...sought.slice(41)];
        return worstNmse(await continueFrom(start, erased, 3), await continueFrom(start, erased, 0));
    };
    const effects = [await effectOf(1), await effectOf(5), await effectOf(5, 39), await effectOf(5, 41)];
    t.log(`NMSE ${effects.map((effect) => effect.toExponential(1)).join(", ")}`);
    t.true(effects[0]! > 3e-5);
    t.true(effects[1]! < 5e-6);
    // a boost of the token before or after it would show
    t.true(effects[2]! > 3e-5);
    t.true(effects[3]! > 3e-5);
    await context.dispose();
});

test.serial("the report", async (t) => {
    for (const pattern of ["random", "first-token"] as const) {
        for (const flashAttention of [true, false]) {
            const context = await model.createContext({contextSize: 256, threads: 1, flashAttention});
            const report = emulateAttention(context, {pattern, schedule: "constant"}).report();
            t.is(report.kernel, flashAttention ? "fused" : "dense");
            t.deepEqual(report.layers.map(({emulated}) => emulated), [false, true, true]);
            t.true(report.patternBytes > 0);
            await context.dispose();
        }
    }
});
