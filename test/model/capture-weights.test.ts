import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {captureAttention, emulateAttention, tokenClasses} from "reattend";
import {classesOfVocabulary} from "#dist/inspect/tokenClasses.js";
import type {
    AttentionCaptureOptions, AttentionEmulationOptions, CapturedAttention, LlamaContextOptions, LlamaModel, Token
} from "reattend";
import type {ExecutionContext} from "ava";
import {writeFloat32Model} from "../support/float32Model.js";
import {evaluateInChunks} from "../support/logits.js";
import {capturedMeasures, capturedWeights, largestDifference, measuresOf} from "../support/measures.js";
import {oracleModelPath} from "../support/oracle.js";
import {oracleModel} from "../support/oracleModel.js";
import {clearThreshold, randomTensors, randomText, writeRandomModel} from "../support/randomModel.js";
import type {RandomModelOptions} from "../support/randomModel.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Captured weights and measures, against a reference in 64-bit arithmetic and against the dense form's own weights.
 */

const tolerance = 1e-5;

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const models: LlamaModel[] = [];
async function load(
    name: string, write: (modelPath: string) => Promise<void>, defaultContextFlashAttention = true
): Promise<LlamaModel> {
    const modelPath = path.join(folder, `${name}.gguf`);
    await write(modelPath);
    const model = await oracleModel.llama.loadModel({modelPath, defaultContextFlashAttention});
    models.push(model);
    return model;
}

type Run = {
    tokens: readonly number[],
    chunks?: readonly number[],
    capture?: AttentionCaptureOptions,
    emulation?: AttentionEmulationOptions,
    context?: LlamaContextOptions
};

async function captureOf(model: LlamaModel, {tokens, chunks = [tokens.length], capture, emulation, context: options}: Run) {
    const context = await model.createContext({
        contextSize: tokens.length + 1, batchSize: tokens.length, threads: 1, flashAttention: true, failedCreationRemedy: false,
        ...options
    });
    if (emulation != null)
        emulateAttention(context, emulation);
    const attentionCapture = captureAttention(context, {weights: true, ...capture});
    const sequence = context.getSequence();
    const logits = await evaluateInChunks(sequence, tokens, chunks);
    const captured = attentionCapture.read();
    await context.dispose();
    return {captured, logits};
}

/** The model's attention changes nothing in it, so that all ways of computing it have the same queries and keys in all layers. */
async function loadWithoutOutput(name: string, options: RandomModelOptions, flashAttention = true): Promise<LlamaModel> {
    const tensors = randomTensors(options);
    for (const [tensorName, {values}] of tensors) {
        if (tensorName.includes("attn_output.weight"))
            values.fill(0);
    }
    return await load(name, (modelPath) => writeRandomModel(modelPath, options, tensors), flashAttention);
}

const float32Model = await load("float32", (modelPath) => writeFloat32Model(oracleModelPath, modelPath));
const reference = await ReferenceLlama.read(oracleModelPath);
const referenceTokens = randomTokens(60, 21);
const classes = referenceTokens.map((token) => classesOfVocabulary(float32Model)[token]!);
const float32 = {
    flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
} satisfies LlamaContextOptions;

test.after.always(async () => {
    await Promise.all(models.map((model) => model.dispose()));
    await fs.rm(folder, {recursive: true});
});

const emulations: Array<[name: string, emulation?: AttentionEmulationOptions]> = [
    ["plain", undefined],
    ["emulated", {strength: 0.7}],
    ["normalized", {strength: 0.7, normalize: true}],
    ["all keys", {strength: 0.5, pattern: "all"}]
];
for (const [name, emulation] of emulations) {
    test.serial(`weights and measures in 32 bits are those of the reference: ${name}`, async (t) => {
        // in the middle of a wide gap between the source layer's weights
        const threshold = 0.01;
        const {captured} = await captureOf(float32Model, {
            tokens: referenceTokens, emulation: emulation && {...emulation, threshold}, context: float32, capture: {threshold}
        });
        t.is(captured.queries, referenceTokens.length);
        t.deepEqual(Array.from(captured.tokens), referenceTokens);

        const referenceEmulation = emulation && {
            threshold, sourceLayer: 0, gain: linearGain(reference.layerCount), pattern: "early-layer" as const, normalize: false,
            ...emulation as {strength: number}
        };
        const source = padded(reference.attentionWeights(referenceTokens, 0));
        for (const layer of captured.layers) {
            const weights = padded(reference.attentionWeights(referenceTokens, layer, referenceEmulation));
            for (const head of captured.heads) {
                const ofHead = capturedWeights(captured, layer, head).map((row) => Array.from(row));
                const difference = largestDifference(ofHead, weights[head]);
                t.true(difference <= tolerance, `layer ${layer}, head ${head}: ${difference}`);
                compareMeasures(t, captured, layer, head, measuresOf(weights[head]!, source[head]!, threshold, classes));
            }
        }
    });
}

function padded(weights: readonly Float64Array[][]): number[][][] {
    return weights.map((rows) => rows.map((row) => Array.from({length: rows.length}, (_, j) => row[j] ?? 0)));
}

/** What is counted may differ where a weight is next to the threshold. */
function compareMeasures(
    t: ExecutionContext, captured: CapturedAttention, layer: number, head: number, expected: ReturnType<typeof measuresOf>,
    allowed = tolerance
): void {
    const {keysPerRow, receivedBy, ...measures} = capturedMeasures(captured, layer, head);
    const {keysPerRow: expectedKeys, receivedBy: expectedBy, ...expectedMeasures} = expected;

    const difference = largestDifference(measures, expectedMeasures);
    t.true(difference <= allowed, `measures of layer ${layer}, head ${head}: ${difference}`);
    t.true(Math.abs(keysPerRow - expectedKeys) * captured.queries <= 1.01, `keys of layer ${layer}, head ${head}`);
    t.true(largestDifference(receivedBy, expectedBy) <= 1, `receivers of layer ${layer}, head ${head}`);
}

type Case = {
    name: string,
    options: RandomModelOptions,
    length: number,
    context?: LlamaContextOptions,
    chunks?: number[],
    emulations?: AttentionEmulationOptions[],
    allowed?: number
};

const cases: Case[] = [
    {name: "llama", options: {architecture: "llama", layers: 3, seed: 3}, length: 300},
    {name: "qwen3, chunks", options: {architecture: "qwen3", layers: 3, seed: 4}, length: 200, chunks: [50, 1, 100, 3, 46]},
    {name: "gemma3, a window", options: {architecture: "gemma3", layers: 7, seed: 5, window: 40}, length: 150, chunks: [100, 1, 49]},
    {
        // windowed layers list the first token where queries no longer see it
        name: "gemma3, the first token and a window", options: {architecture: "gemma3", layers: 7, seed: 5, window: 40}, length: 150,
        emulations: [{strength: 0.5, pattern: "first-token"}, {strength: -0.3, pattern: "first-token", normalize: true}]
    },
    ...(["BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "MXFP4"] as const).map((type) => ({
        name: `llama, cache of ${type}`, options: {architecture: "llama", layers: 2, seed: 6} as const, length: 120,
        context: {experimentalKvCacheKeyType: type, experimentalKvCacheValueType: type},
        // the dense form rounds the sums of queries that it multiplies with the least of a block of keys
        allowed: type === "Q5_1" || type === "Q4_1" ? 5e-5 : tolerance
    })),
    {name: "llama, two threads", options: {architecture: "llama", layers: 2, seed: 7}, length: 100, context: {threads: 2}}
];
const usualEmulations = [{strength: 0.5}, {strength: -0.3, normalize: true}];
for (const {name, options, length, context, chunks, emulations = usualEmulations, allowed = tolerance} of cases) {
    test.serial(`with flash attention, weights are the dense form's: ${name}`, async (t) => {
        const model = await loadWithoutOutput(name.replaceAll(/\W/g, "-"), options);
        const tokens = randomText(length, options.seed);
        for (const emulation of [undefined, ...emulations]) {
            const run = {tokens, chunks, emulation: emulation && {...emulation, threshold: clearThreshold}, context};
            const capture = {threshold: clearThreshold};
            const {captured: fused} = await captureOf(model, {...run, capture});
            const {captured: dense} = await captureOf(model, {
                ...run, capture, context: {...context, experimentalKvCacheValueType: "F16", flashAttention: false}
            });
            t.is(fused.layers.length, options.layers);
            compareCaptures(t, fused, dense, allowed);
        }
    });
}

function compareCaptures(t: ExecutionContext, fused: CapturedAttention, dense: CapturedAttention, allowed: number): void {
    for (const layer of fused.layers) {
        for (const head of fused.heads) {
            const difference = largestDifference(
                capturedWeights(fused, layer, head).map((row) => Array.from(row)),
                capturedWeights(dense, layer, head).map((row) => Array.from(row))
            );
            t.true(difference <= allowed, `layer ${layer}, head ${head}: ${difference}`);
            compareMeasures(t, fused, layer, head, capturedMeasures(dense, layer, head), allowed);
        }
    }
}

test.serial("emulation changes weights as its formula says", async (t) => {
    const model = await loadWithoutOutput("formula", {architecture: "llama", layers: 4, seed: 8});
    const tokens = randomText(200, 8);
    const strength = 0.6;
    const {captured: plain} = await captureOf(model, {tokens});
    const {captured: emulated} = await captureOf(model, {tokens, emulation: {strength, threshold: clearThreshold}});

    let changed = 0;
    for (const layer of plain.layers) {
        const gain = layer === 0
            ? 0
            : strength * linearGain(4)(layer);
        for (const head of plain.heads) {
            const source = capturedWeights(plain, 0, head);
            const expected = capturedWeights(plain, layer, head).map((row, i) => Array.from(row, (weight, j) => {
                const isChosen = source[i]![j]! > clearThreshold && i !== j;
                changed += isChosen && gain > 0 ? 1 : 0;
                return isChosen
                    ? weight * (1 + gain)
                    : weight;
            }));
            const rows = capturedWeights(emulated, layer, head).map((row) => Array.from(row));
            const difference = largestDifference(rows, expected);
            t.true(difference <= tolerance, `layer ${layer}, head ${head}: ${difference}`);
        }
    }
    t.true(changed > 1000, `${changed} weights were changed`);
});

test.serial("chunks give what one batch gives", async (t) => {
    const model = await loadWithoutOutput("chunks", {architecture: "llama", layers: 2, seed: 9});
    const tokens = randomText(180, 9);
    const chunks = [100, 1, 30]; // and then one by one
    const {captured: whole} = await captureOf(model, {tokens});
    const {captured: parts} = await captureOf(model, {tokens, chunks});
    // queries and keys themselves depend on how many tokens are multiplied at once, by an F16 of a key: as much as the dense form's weights
    const context = {flashAttention: false} satisfies LlamaContextOptions;
    const {captured: denseWhole} = await captureOf(model, {tokens, context});
    const {captured: denseParts} = await captureOf(model, {tokens, chunks, context});
    t.deepEqual(parts.rowIndices, whole.rowIndices);
    t.deepEqual(parts.tokens, whole.tokens);
    for (const layer of whole.layers) {
        for (const head of whole.heads) {
            const weights = (captured: CapturedAttention) => capturedWeights(captured, layer, head).map((row) => Array.from(row));
            const ofModel = largestDifference(weights(denseParts), weights(denseWhole));
            const difference = largestDifference(weights(parts), weights(whole));
            t.true(ofModel <= 1e-4, `dense form, layer ${layer}, head ${head}: ${ofModel}`);
            t.true(difference <= ofModel + tolerance, `layer ${layer}, head ${head}: ${difference}`);
            compareMeasures(t, parts, layer, head, capturedMeasures(whole, layer, head), ofModel + tolerance);
        }
    }
});

/** Of no cache: where some layers have windows, all have the same cells. */
const encoders: Array<{options: RandomModelOptions, sourceLayer: number}> = [
    {options: {architecture: "bert", layers: 2, seed: 10, pooling: 1}, sourceLayer: 0},
    {options: {architecture: "gemma-embedding", layers: 8, seed: 14, window: 20, pooling: 1}, sourceLayer: 5}
];
for (const {options, sourceLayer} of encoders) {
    test.serial(`with flash attention, an encoder's weights are the dense form's: ${options.architecture}`, async (t) => {
        const tokens = randomText(60, 10);
        const [fusedModel, denseModel] = [
            await loadWithoutOutput(`${options.architecture}-fused`, options, true),
            await loadWithoutOutput(`${options.architecture}-dense`, options, false)
        ];
        for (const emulation of [undefined, {strength: 0.5}, {strength: -0.3, normalize: true}]) {
            const captures = [];
            for (const model of [fusedModel, denseModel]) {
                const context = await model.createEmbeddingContext({contextSize: 128, threads: 1});
                if (emulation != null)
                    emulateAttention(context, {...emulation, threshold: clearThreshold, sourceLayer});
                const capture = captureAttention(context, {weights: true, sourceLayer, threshold: clearThreshold});
                await context.getEmbeddingFor(tokens as Token[]);
                captures.push(capture.read());
                await context.dispose();
            }
            const [fused, dense] = captures as [CapturedAttention, CapturedAttention];
            t.is(fused.layers.length, options.layers);
            t.is(fused.queries, fused.tokens.length);
            // flash attention rounds keys that are not in a cache to 16 bits
            compareCaptures(t, fused, dense, 3e-3);
        }
    });
}

test.serial("the strongest keys, and some layers, heads and queries", async (t) => {
    const tokens = randomTokens(80, 22);
    const {captured: all} = await captureOf(oracleModel, {tokens});
    const {captured} = await captureOf(oracleModel, {
        tokens, chunks: [30, 20, 1, 29], capture: {weights: false, topK: 5, layers: [6, 2], heads: [1], queries: [70, 3, 31]}
    });
    t.deepEqual(captured.layers, [2, 6]);
    t.deepEqual(captured.heads, [1]);
    t.deepEqual(Array.from(captured.rowIndices), [3, 31, 70]);
    t.is(captured.queries, tokens.length);
    t.is(captured.weights, undefined);
    t.deepEqual(captured.entropy.length, 2);
    for (const layer of captured.layers) {
        const keys = captured.get(`layers.${layer}.attention.topKeys`);
        const weights = captured.get(`layers.${layer}.attention.topWeights`);
        for (const [row, query] of [3, 31, 70].entries()) {
            const expected = Array.from(capturedWeights(all, layer, 1)[query]!.subarray(0, query + 1).entries())
                .sort(([, a], [, b]) => b - a)
                .slice(0, 5);
            for (let k = 0; k < 5; k++) {
                const [key, weight] = expected[k] ?? [0xffffffff, 0];
                t.is(keys[row * 5 + k], key);
                t.true(Math.abs(weights[row * 5 + k]! - weight) < 2e-3); // chunks differ by rounding
            }
        }
    }
});

test.serial("rows of weights are as wide as the sequence is long, whatever batch they are of", async (t) => {
    const tokens = randomTokens(20, 23);
    const chunks = [8, 8, 4];
    const {captured: all} = await captureOf(oracleModel, {tokens, chunks, capture: {layers: [2, 5]}});
    t.is(all.tokenCount, 20);
    t.is(all.weights!.length, 2 * all.heads.length * 20 * 20);

    const {captured} = await captureOf(oracleModel, {tokens, chunks, capture: {layers: [2, 5], queries: [3, 9]}});
    t.is(captured.tokenCount, 20);
    t.is(captured.weights!.length, 2 * all.heads.length * 2 * 20);
    for (let head = 0; head < 2 * all.heads.length; head++) {
        for (const [row, query] of [3, 9].entries()) {
            const start = (2 * head + row) * 20;
            t.deepEqual(
                captured.weights!.subarray(start, start + 20),
                all.weights!.subarray((head * 20 + query) * 20, (head * 20 + query + 1) * 20)
            );
        }
    }
});

test.serial("hidden states and the logit lens", async (t) => {
    const {captured, logits} = await captureOf(float32Model, {
        tokens: referenceTokens, context: float32, chunks: [40, 20], capture: {hiddenStates: true, logitLens: 3}
    });
    const last = reference.layerCount - 1;
    for (const layer of captured.layers) {
        const expected = reference.hiddenStates(referenceTokens, layer);
        const states = captured.get(`layers.${layer}.hiddenState`);
        const width = states.length / referenceTokens.length;
        const difference = largestDifference(
            referenceTokens.map((_, i) => Array.from(states.subarray(i * width, (i + 1) * width))),
            expected.map((state) => Array.from(state))
        );
        t.true(difference < 1e-3, `layer ${layer}: ${difference}`);
    }

    const lens = captured.get(`layers.${last}.logitLens.tokens`);
    const logProbabilities = captured.get(`layers.${last}.logitLens.logProbabilities`);
    for (const [i, row] of logits.entries()) {
        const most = row.reduce((a, b) => Math.max(a, b));
        const logSum = most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
        const best = Array.from(row.entries()).sort(([, a], [, b]) => b - a).slice(0, 3);
        for (const [k, [token, logit]] of best.entries()) {
            t.is(lens[3 * i + k], token);
            t.true(Math.abs(logProbabilities[3 * i + k]! - (logit - logSum)) < 1e-4);
        }
    }
});

test.serial("classes of tokens are those of the vocabulary", (t) => {
    const counts = tokenClasses.map((_, c) => classesOfVocabulary(float32Model).filter((value) => value === c).length);
    t.log(tokenClasses.map((name, c) => `${name} ${counts[c]}`).join(", "));
    t.true(counts.every((count) => count > 0));
});
