import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {captureAttention, emulateAttention} from "reattend";
import type {AttentionEmulationOptions, CapturedAttention} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {capturedWeights, largestDifference} from "../support/measures.js";
import {oracleModel} from "../support/oracleModel.js";
import {randomTensors, randomText, writeRandomModel} from "../support/randomModel.js";

/*
 * ZeroTuning (Han et al., arXiv 2505.11739) multiplies the first token's weight by 1 + g and divides rows by their sum:
 *
 *     w0' = (1 + g) · w0 / (1 + g · w0),  wj' = wj / (1 + g · w0)
 *
 * Layer 1 is the first that is steered, so its queries, keys and values are those of the plain run. It is made such that it adds the
 * attention's output to the residual stream and nothing else. The output of the flash attention itself can so be foretold, too:
 * it is linear in the weights, and in the first row it is the first token's value. So o' = (o + g · w0 · o(first row)) / (1 + g · w0).
 */

/** Weights have 32 bits, 6e-8 of a weight near 1; where the first token is turned down to a tenth, errors of a row may grow tenfold. */
const weightTolerance = 1e-6;

/**
 * Values of 16 bits are added up in 16 bits, plain and steered, to sums of about 4: 2e-3 each. Quantised ones are added up in 32
 * bits, which leaves the roundings of the residual stream, of up to 8: 1e-6. The effect is above 0.1.
 */
const outputTolerance = {F16: 6e-3, Q8_0: 1e-5};

type ValueType = keyof typeof outputTolerance;

const layers = 3;
const steeredLayer = 1;
const heads = 4;
const options = {architecture: "llama", layers, seed: 12} as const;
const tokens = randomText(150, 12);

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const tensors = randomTensors(options);
tensors.get(`blk.${steeredLayer}.ffn_down.weight`)!.values.fill(0);
const output = tensors.get(`blk.${steeredLayer}.attn_output.weight`)!;
const width = output.shape[0]!;
output.values.fill(0);
for (let i = 0; i < width; i++)
    output.values[i * width + i] = 1;
await writeRandomModel(path.join(folder, "model.gguf"), options, tensors);
const model = await oracleModel.llama.loadModel({modelPath: path.join(folder, "model.gguf")});

const plainOf = {F16: await captureOf("F16"), Q8_0: await captureOf("Q8_0")};

// hooks and tests are declared together, after whatever had to be waited for
test.after.always(async () => {
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

async function captureOf(valueType: ValueType, emulation?: AttentionEmulationOptions): Promise<CapturedAttention> {
    const context = await model.createContext({
        contextSize: 256, batchSize: tokens.length, threads: 1, flashAttention: true,
        experimentalKvCacheKeyType: "F16", experimentalKvCacheValueType: valueType
    });
    if (emulation != null)
        emulateAttention(context, emulation);
    const capture = captureAttention(context, {weights: true, hiddenStates: true});
    // most in one batch, the last ones one by one; with F32 sums no batch of 64 or more: these don't round queries, captured weights do
    await evaluateInChunks(context.getSequence(), tokens, valueType === "F16" ? [tokens.length - 5] : [60, 60, tokens.length - 125]);
    const captured = capture.read();
    await context.dispose();
    return captured;
}

/** What the layer adds to the residual stream, for each head: the rows of its attention's output. */
function attentionOutput(captured: CapturedAttention): number[][][] {
    const [before, after] = [steeredLayer - 1, steeredLayer].map((layer) => captured.get(`layers.${layer}.hiddenState`));
    const headSize = width / heads;
    return Array.from({length: heads}, (_, head) => tokens.map((_, row) => Array.from({length: headSize}, (_, i) => {
        const place = row * width + head * headSize + i;
        return after![place]! - before![place]!;
    })));
}

const cases: Array<[name: string, emulation: AttentionEmulationOptions, gainOf: (head: number) => number]> = [
    ["up", {strength: 1.5, schedule: "constant"}, () => 1.5],
    ["down", {strength: -0.5, schedule: "constant"}, () => -0.5],
    ["nearly off", {strength: -0.9, schedule: "constant"}, () => -0.9],
    [
        "each head its own way", {strength: 1, schedule: Array.from({length: layers}, () => [3, 0.2, -0.9, 0])},
        (head) => [3, 0.2, -0.9, 0][head]!
    ]
];
const combinations = cases.flatMap((one) => (["F16", "Q8_0"] as const).map((valueType) => [...one, valueType] as const));
for (const [name, emulation, gainOf, valueType] of combinations) {
    test.serial(`the first token's weight, rows normalised: ${name}, values of ${valueType}`, async (t) => {
        const plain = plainOf[valueType];
        const context = await model.createContext({contextSize: 64, flashAttention: true});
        t.is(emulateAttention(context, {...emulation, pattern: "first-token", normalize: true}).report().layers[steeredLayer]!.kernel, "fused");
        await context.dispose();

        const steered = await captureOf(valueType, {...emulation, pattern: "first-token", normalize: true, sourceLayer: 0});
        for (const head of plain.heads) {
            const g = gainOf(head);
            // the source layer is left alone
            t.deepEqual(capturedWeights(steered, 0, head), capturedWeights(plain, 0, head));

            const rows = capturedWeights(plain, steeredLayer, head);
            const expected = rows.map((row, i) => Array.from(row, (weight, j) => {
                const first = row[0]!;
                if (i === 0)
                    return weight;
                return (j === 0 ? 1 + g : 1) * weight / (1 + g * first);
            }));
            const actual = capturedWeights(steered, steeredLayer, head).map((row) => Array.from(row));
            const difference = largestDifference(actual, expected);
            t.true(difference <= weightTolerance, `weights of head ${head}: ${difference}`);

            const output = attentionOutput(plain)[head]!;
            const expectedOutput = output.map((row, i) => row.map((value, place) => {
                const first = rows[i]![0]!;
                return i === 0
                    ? value
                    : (value + g * first * output[0]![place]!) / (1 + g * first);
            }));
            const outputDifference = largestDifference(attentionOutput(steered)[head], expectedOutput);
            t.true(outputDifference <= outputTolerance[valueType], `output of head ${head}: ${outputDifference}`);

            // the first token has some weight, so the formula changes something
            const effect = largestDifference(expectedOutput, output);
            t.log(`head ${head}: weights ${difference.toExponential(1)}, output ${outputDifference.toExponential(1)}, effect ${effect.toExponential(1)}`);
            t.true(g === 0 || effect > 0.1, `head ${head}: the effect is only ${effect}`);
        }
    });
}
