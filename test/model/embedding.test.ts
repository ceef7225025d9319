import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions, LlamaModel, Token} from "reattend";
import {compareWithDense} from "../support/dense.js";
import {worstNmse} from "../support/nmse.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";
import type {RandomModelOptions} from "../support/randomModel.js";

/*
 * Embeddings, of encoders (every token sees all others, nothing is cached) and of decoders.
 */

const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const texts = [60, 7, 90, 33].map((length, i) => randomText(length, i) as Token[]);
const layers = 4;

test.after.always(() => fs.rm(folder, {recursive: true}));

const models: Array<[name: string, options: Omit<RandomModelOptions, "layers" | "seed">]> = [
    ["encoder, mean", {architecture: "bert", pooling: 1}],
    ["encoder, first token", {architecture: "bert", pooling: 2}],
    ["decoder, last token", {architecture: "llama", pooling: 3}],
    ["decoder, mean", {architecture: "qwen3", pooling: 1}]
];
for (const [index, [name, options]] of models.entries()) {
    const load = async () => {
        const modelPath = path.join(folder, `${index}.gguf`);
        await writeRandomModel(modelPath, {...options, layers, seed: index});
        return await llama.loadModel({modelPath});
    };

    test.serial(`${name}: fused and dense`, async (t) => {
        const model = await load();
        for (const emulation of [{}, {schedule: "constant", normalize: true}] satisfies AttentionEmulationOptions[])
            await compareWithDense(t, (options) => embeddings(model, options), emulation);
        await model.dispose();
    });

    test.serial(`${name}: asked for one by one and all at a time, before, with and after an emulation`, async (t) => {
        const model = await load();
        const context = await createContext(model);
        const inTurn = async () => {
            const vectors = [];
            for (const text of texts)
                vectors.push((await context.getEmbeddingFor(text)).vector);
            return vectors;
        };
        const together = async () => (await Promise.all(texts.map((text) => context.getEmbeddingFor(text)))).map(({vector}) => vector);

        const plain = await inTurn();
        t.deepEqual(await together(), plain);

        const emulation = emulateAttention(context, {strength: 0.5, threshold: clearThreshold});
        const emulated = await inTurn();
        emulated.forEach((vector, i) => t.notDeepEqual(vector, plain[i]));
        t.deepEqual(await together(), emulated);

        emulation.strength = 0;
        t.deepEqual(await together(), plain);
        emulation.strength = 0.5;
        t.deepEqual(await inTurn(), emulated);

        emulation.dispose();
        t.deepEqual(await inTurn(), plain);
        await model.dispose();
        t.true(context.disposed);
    });

    test.serial(`${name}: the report`, async (t) => {
        const model = await load();
        for (const kernel of ["auto", "dense"] as const) {
            const context = await createContext(model);
            const emulation = emulateAttention(context, {strength: 0.5, kernel});
            const before = emulation.report();
            const name = kernel === "auto" ? "fused" : "dense";
            t.is(before.kernel, name);
            t.like(before.layers[0], {gain: 0, emulated: false, reason: "the pattern is taken from this layer"});
            t.like(before.layers[1], {gain: 0.5 * (1 - 1 / 3), emulated: true, kernel: name});
            t.like(before.layers[3], {gain: 0, emulated: false, reason: "the schedule's gain is 0 in this layer"});
            t.true(before.patternBytes > 0);

            await context.getEmbeddingFor(texts[0]!);
            t.deepEqual(emulation.report(), before);
            await context.dispose();
        }
        await model.dispose();
    });
}

test.serial("an encoder's tokens leave out their own keys", async (t) => {
    const modelPath = path.join(folder, "own-keys.gguf");
    await writeRandomModel(modelPath, {architecture: "bert", layers: 2, seed: 1, pooling: 2});
    const model = await llama.loadModel({modelPath, metadataOverrides: {tokenizer: {ggml: {add_bos_token: false}}}});

    // the embedding is the first token's, so only its queries count: they find the one token that even heads seek
    const [sought, other] = [13, 10];
    const embeddingOf = async (tokens: number[], strength: number, kernel: "auto" | "dense") => {
        const context = await createContext(model);
        emulateAttention(context, {strength, threshold: 0.3, schedule: "constant", kernel});
        const {vector} = await context.getEmbeddingFor(tokens as Token[]);
        await context.dispose();
        return vector;
    };
    const text = Array.from({length: 30}, () => other);
    for (const kernel of ["auto", "dense"] as const) {
        for (const [place, found] of [[0, false], [1, true], [29, true]] as const) {
            const tokens = text.with(place, sought);
            const [plain, emulated] = [await embeddingOf(tokens, 0, kernel), await embeddingOf(tokens, 1, kernel)];
            t.is(worstNmse([emulated], [plain]) > 0, found, `kernel ${kernel}, the token at ${place}`);
        }
    }
    await model.dispose();
});

async function createContext(model: LlamaModel) {
    return await model.createEmbeddingContext({contextSize: 128, threads: 1});
}

async function embeddings(model: LlamaModel, emulation?: AttentionEmulationOptions): Promise<ReadonlyArray<readonly number[]>> {
    const context = await createContext(model);
    if (emulation != null)
        emulateAttention(context, emulation);
    const vectors = [];
    for (const text of texts)
        vectors.push((await context.getEmbeddingFor(text)).vector);
    await context.dispose();
    return vectors;
}
