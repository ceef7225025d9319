import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions} from "reattend";
import {seededRandom} from "#dist/random.js";
import {compareWithDense} from "../support/dense.js";
import {addTensors, GgufWriter} from "../support/gguf.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {attention, clearThreshold, randomTensors, randomText, writeRandomModel} from "../support/randomModel.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";
import type {Tensor} from "../support/gguf.js";

/*
 * With a LoRA adapter the pattern is what the adapted source layer attends to.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const [modelPath, adapterPath, mergedPath] = ["model", "adapter", "merged"].map((name) => path.join(folder, `${name}.gguf`)) as
    [string, string, string];
const options = {architecture: "llama", layers: 4, seed: 1} as const;
const tokens = randomText(100, 1);
const rank = 4;
const alpha = 8;
const scale = 0.5; // as the context is given it; with alpha and rank the adapter is added once

const tensors = randomTensors(options);
const adapter = randomAdapter();
await writeRandomModel(modelPath, options, tensors);
await writeRandomModel(mergedPath, options, merge());
await addTensors(
    new GgufWriter()
        .addMetadata("general.type", "string", "adapter")
        .addMetadata("general.architecture", "string", "llama")
        .addMetadata("adapter.type", "string", "lora")
        .addMetadata("adapter.lora.alpha", "float32", alpha),
    adapter
).write(adapterPath);

const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath});

test.after.always(async () => {
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

test.serial("fused and dense", async (t) => {
    await compareWithDense(t, evaluate);
    await compareWithDense(t, evaluate, {normalize: true});
});

test.serial("fused and dense against the merged weights in 64 bits", async (t) => {
    const reference = await ReferenceLlama.read(mergedPath);
    const emulation = {strength: 0.5, threshold: clearThreshold} as const;
    const expectedPlain = reference.logits(tokens);
    const expected = reference.logits(tokens, {
        ...emulation, sourceLayer: 0, gain: linearGain(options.layers), pattern: "early-layer", normalize: false
    });

    const withoutAdapter = await ReferenceLlama.read(modelPath);
    t.true(worstNmse(withoutAdapter.logits(tokens), expectedPlain) > 0.1, "the adapter does nothing");
    t.notDeepEqual(chosenKeys(withoutAdapter), chosenKeys(reference), "the adapter does not change the pattern");

    for (const kernel of ["auto", "dense"] as const) {
        const allowed = 5 * worstNmse(await evaluate({...emulation, kernel, strength: 0}), expectedPlain);
        const error = worstNmse(await evaluate({...emulation, kernel}), expected);
        t.log(`kernel "${kernel}": NMSE ${error.toExponential(1)}, allowed ${allowed.toExponential(1)}`);
        t.true(error <= allowed, `kernel "${kernel}": NMSE ${error}`);
        t.true(worstNmse(expected, expectedPlain) > 20 * allowed, "the case would not show a mistake");
    }
});

async function evaluate(emulation?: AttentionEmulationOptions): Promise<Float32Array[]> {
    const context = await model.createContext({
        contextSize: 256, threads: 1, flashAttention: true, lora: {adapters: [{filePath: adapterPath, scale}]}
    });
    if (emulation != null)
        emulateAttention(context, emulation);
    const logits = await evaluateInChunks(context.getSequence(), tokens, [70, 1, 9]);
    await context.dispose();
    return logits;
}

function chosenKeys(reference: ReferenceLlama): number[] {
    return reference.attentionWeights(tokens, 0).map((rows) => (
        rows.reduce((count, row) => count + row.filter((weight) => weight > clearThreshold).length, 0)
    ));
}

/** Pairs of narrow matrices for every layer's weights; in the first layer, one that lets even heads seek what odd ones do. */
function randomAdapter(): Map<string, Tensor> {
    const random = seededRandom(2);
    const pairs = new Map<string, Tensor>();
    for (const [name, {shape}] of tensors) {
        if (!/^blk\.\d+\.(attn_[qv]|attn_output|ffn_(up|gate|down))\./.test(name) || name === "blk.0.attn_q.weight")
            continue;
        const [columns, rows] = shape as [number, number];
        const noise = (length: number) => Float32Array.from({length}, () => 0.3 * (2 * random() - 1));
        pairs.set(`${name}.lora_a`, {shape: [columns, rank], values: noise(columns * rank)});
        pairs.set(`${name}.lora_b`, {shape: [rank, rows], values: noise(rank * rows)});
    }

    const [columns, rows] = tensors.get("blk.0.attn_k.weight")!.shape as [number, number];
    const a = new Float32Array(columns * rank);
    const b = new Float32Array(rank * rows);
    a[attention.marks[1]] = 1;
    b[attention.soughtAt[0] * rank] = attention.sharpness;
    pairs.set("blk.0.attn_k.weight.lora_a", {shape: [columns, rank], values: a});
    pairs.set("blk.0.attn_k.weight.lora_b", {shape: [rank, rows], values: b});
    return pairs;
}

/** The model's tensors with the adapter added. */
function merge(): Map<string, Tensor> {
    return new Map(Array.from(tensors, ([name, tensor]) => {
        const [a, b] = [adapter.get(`${name}.lora_a`), adapter.get(`${name}.lora_b`)];
        if (a == null || b == null)
            return [name, tensor];

        const [columns] = tensor.shape as [number];
        const values = tensor.values.map((value, i) => {
            const [row, column] = [Math.floor(i / columns), i % columns];
            let sum = 0;
            for (let r = 0; r < rank; r++)
                sum += b.values[row * rank + r]! * a.values[r * columns + column]!;
            return value + scale * alpha / rank * sum;
        });
        return [name, {shape: tensor.shape, values}];
    }));
}
