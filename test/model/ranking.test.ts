import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions, LlamaModel, Token} from "reattend";
import {compareWithDense} from "../support/dense.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";
import type {Architecture} from "../support/randomModel.js";

/*
 * Ranks of documents, by an encoder and by a decoder.
 */

const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const query = randomText(9, 1).slice(1) as Token[];
const documents = [30, 5, 70, 18].map((length, i) => randomText(length, 2 + i).slice(1) as Token[]);

test.after.always(() => fs.rm(folder, {recursive: true}));

for (const [index, architecture] of (["bert", "qwen3"] satisfies Architecture[]).entries()) {
    const load = async () => {
        const modelPath = path.join(folder, `${index}.gguf`);
        await writeRandomModel(modelPath, {architecture, layers: 3, seed: index, pooling: 4});
        return await llama.loadModel({modelPath});
    };

    test.serial(`${architecture}: fused and dense`, async (t) => {
        const model = await load();
        await compareWithDense(t, (options) => ranks(model, options));
        await compareWithDense(t, (options) => ranks(model, options), {schedule: "constant", normalize: true});
        await model.dispose();
    });

    test.serial(`${architecture}: one document and all, before, with and after an emulation`, async (t) => {
        const model = await load();
        const context = await model.createRankingContext({contextSize: 128, threads: 1});
        const inTurn = async () => {
            const results = [];
            for (const document of documents)
                results.push(await context.rank(query, document));
            return results;
        };

        const plain = await inTurn();
        t.deepEqual(await context.rankAll(query, documents), plain);

        const emulation = emulateAttention(context, {strength: 1, threshold: clearThreshold});
        const {kernel, layers} = emulation.report();
        t.is(kernel, "fused");
        t.deepEqual(layers.map(({emulated}) => emulated), [false, true, false]);
        t.deepEqual(layers.map(({gain}) => gain), [0, 0.5, 0]);

        const emulated = await inTurn();
        emulated.forEach((rank, i) => t.not(rank, plain[i]));
        t.deepEqual(await context.rankAll(query, documents), emulated);

        emulation.strength = 0;
        t.deepEqual(await context.rankAll(query, documents), plain);
        emulation.strength = 1;
        t.deepEqual(await context.rankAll(query, documents), emulated);

        emulation.dispose();
        t.deepEqual(await inTurn(), plain);
        await context.dispose();
        await model.dispose();
    });
}

async function ranks(model: LlamaModel, emulation?: AttentionEmulationOptions): Promise<number[][]> {
    const context = await model.createRankingContext({contextSize: 128, threads: 1});
    if (emulation != null)
        emulateAttention(context, emulation);
    const results = await context.rankAll(query, documents);
    await context.dispose();

    // what the model gives, from which node-llama-cpp makes a probability
    return [results.map((rank) => Math.log(rank / (1 - rank)))];
}
