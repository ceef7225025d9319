import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention} from "reattend";
import type {AttentionEmulationOptions} from "reattend";
import {compareWithDense} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {nmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomText, writeRandomModel} from "../support/randomModel.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Keys and values of other types cost llama.cpp some accuracy; emulation costs no more than that.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const modelPath = path.join(folder, "model.gguf");
await writeRandomModel(modelPath, {architecture: "llama", layers: 3, seed: 1});
const model = await oracleModel.llama.loadModel({modelPath});

const reference = await ReferenceLlama.read(oracleModelPath);
const tokens = randomTokens(100, 2);
const threshold = 0.1123; // no weight is within 0.9 % of it
const emulated = reference.logits(tokens, {
    strength: 1, threshold, sourceLayer: 0, gain: linearGain(reference.layerCount), pattern: "early-layer", normalize: false
});
const plain = reference.logits(tokens);

test.after.always(async () => {
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

const types = [["F32", "F32"], ["BF16", "BF16"], ["Q8_0", "F16"], ["Q8_0", "Q8_0"], ["Q5_1", "Q5_1"]] as const;

for (const [keyType, valueType] of types) {
    test.serial(`keys of ${keyType}, values of ${valueType}`, async (t) => {
        const evaluate = async (kernel: "auto" | "dense", strength: number) => {
            const context = await createContext({experimentalKvCacheKeyType: keyType, experimentalKvCacheValueType: valueType});
            const {kernel: reported} = emulateAttention(context, {strength, threshold, kernel}).report();
            t.is(reported, kernel === "auto" ? "fused" : "dense");
            const logits = await evaluateInChunks(context.getSequence(), tokens, [64, 1, 20]);
            await context.dispose();
            return logits;
        };

        for (const kernel of ["auto", "dense"] as const) {
            const costOfTypes = medianNmse(await evaluate(kernel, 0), plain);
            t.true(medianNmse(emulated, plain) > 4 * costOfTypes, "the case would not show a mistake");
            const error = medianNmse(await evaluate(kernel, 1), emulated);
            t.log(`kernel "${kernel}": NMSE ${error.toExponential(1)}, without emulation ${costOfTypes.toExponential(1)}`);
            t.true(error <= 2 * costOfTypes);
        }
    });
}

// every type that llama.cpp keeps keys and values in on the CPU, for heads of any multiple of 32
const all = ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "MXFP4"] as const;
type CacheType = typeof all[number];
const pairs: Array<[keyType: CacheType, valueType: CacheType]> = [
    ...all.map((type): [CacheType, CacheType] => [type, type]),
    ...all.filter((type) => type !== "F16").flatMap((type): Array<[CacheType, CacheType]> => [[type, "F16"], ["F16", type]]),
    ["Q8_0", "Q4_0"], ["Q4_0", "Q8_0"], ["BF16", "Q5_1"]
];
// Tiled and in one chunk; or with the keys of a token split among threads, for those that test/native leaves out. The dense
// form rounds queries as coarsely as keys, and tiles don't: they are compared with it for keys of 16 and 32 bits, and in
// test/kernels for all types.
const shapes = [
    ...pairs.map((types) => ({types, length: 100, chunks: [/^B?F/.test(types[0]) ? 70 : 60, 1, 20], from: 0, threads: 1})),
    ...(["Q5_0", "Q5_1", "Q4_1", "IQ4_NL", "MXFP4"] satisfies CacheType[]).map((type) => (
        {types: [type, type] as [CacheType, CacheType], length: 525, chunks: [...Array<number>(9).fill(57), 7], from: 520, threads: 2}
    ))
];
for (const {types: [keyType, valueType], length, chunks, from, threads} of shapes) {
    test.serial(`fused and dense: keys of ${keyType}, values of ${valueType}, ${length} tokens`, async (t) => {
        const evaluate = async (keyType: CacheType, valueType: CacheType, emulation?: AttentionEmulationOptions) => {
            const context = await model.createContext({
                contextSize: length + 1, batchSize: length, threads, flashAttention: true,
                experimentalKvCacheKeyType: keyType, experimentalKvCacheValueType: valueType, failedCreationRemedy: false
            });
            if (emulation != null)
                emulateAttention(context, emulation);
            const logits = await evaluateInChunks(context.getSequence(), randomText(length, 1), chunks);
            await context.dispose();
            return logits.slice(from);
        };

        // a few of the thousands of values may be rounded the other way
        const costOfTypes = worstNmse(await evaluate(keyType, valueType), await evaluate("F32", "F32"));
        await compareWithDense(t, (emulation) => evaluate(keyType, valueType, emulation), {}, costOfTypes / 100);
    });
}

/** Not the worst: with coarse keys a weight may fall on the other side of any threshold. */
function medianNmse(actual: ReadonlyArray<ArrayLike<number>>, expected: ReadonlyArray<ArrayLike<number>>): number {
    const errors = actual.map((logits, i) => nmse(logits, expected[i]!)).sort((a, b) => a - b);
    return errors[Math.floor(errors.length / 2)]!;
}
