import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions} from "reattend";
import {compareWithDense} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";

/*
 * A model with two caches: most layers see a window of the last tokens, whose cells are used again and again, each sixth sees all.
 * Each kind of layer takes its pattern from the first one of its kind.
 */

const window = 40;
const layers = 13; // windowed but for 5 and 11
const tokens = randomText(450, 1);

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const modelPath = path.join(folder, "model.gguf");
await writeRandomModel(modelPath, {architecture: "gemma3", layers, seed: 1, window});
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath});

test.after.always(async () => {
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

const ways: Array<[name: string, chunks: number[], batchSize: number]> = [
    ["one batch", [450], 450],
    // a batch and a window fit into 256 cells, of which the later tokens take the place of earlier ones
    ["batches of 150", [450], 150],
    ["uneven chunks", [130, 7, 70, 1, 90, 1, 64, 65], 150],
    ["token by token", [120], 150]
];

for (const swaFullCache of [false, true]) {
    const evaluate = async (emulation: AttentionEmulationOptions | undefined, chunks: number[], batchSize: number) => {
        const context = await model.createContext({
            contextSize: 512, batchSize, threads: 1, flashAttention: true, swaFullCache, failedCreationRemedy: false
        });
        if (emulation != null)
            emulateAttention(context, emulation);
        const logits = await evaluateInChunks(context.getSequence(), tokens, chunks);
        await context.dispose();
        return logits;
    };

    for (const [name, chunks, batchSize] of ways) {
        test.serial(`${name}, swaFullCache ${swaFullCache}`, async (t) => {
            const {scale, expected} = await compareWithDense(t, (emulation) => evaluate(emulation, chunks, batchSize));

            const [, inOneBatch, allAtOnce] = ways[0]!;
            const other = await evaluate({strength: 0.5, threshold: clearThreshold, kernel: "dense"}, inOneBatch, allAtOnce);
            const error = worstNmse(expected, other);
            t.log(`against one batch: NMSE ${error.toExponential(1)}`);
            t.true(error <= 5 * scale, `against one batch: NMSE ${error}`);
        });
    }

    test.serial(`the report, swaFullCache ${swaFullCache}`, async (t) => {
        const reportOf = async (options: AttentionEmulationOptions) => {
            const context = await model.createContext({contextSize: 512, threads: 1, flashAttention: true, swaFullCache});
            const report = emulateAttention(context, options).report();
            await context.dispose();
            return report;
        };
        const source = "the pattern is taken from this layer";
        const before = "the layer comes before the source layer";
        const last = "the schedule's gain is 0 in this layer";

        const first = await reportOf({});
        t.is(first.kernel, "fused");
        t.deepEqual(first.layers.map(({reason}) => reason), layerList({0: source, 5: source, 12: last}));
        const later = await reportOf({sourceLayer: 3, kernel: "dense"});
        t.is(later.kernel, "dense");
        t.deepEqual(later.layers.map(({reason}) => reason), layerList({0: before, 1: before, 2: before, 3: source, 5: source, 12: last}));
        for (const {layers} of [first, later])
            t.true(layers.every(({reason, emulated, gain}) => (reason == null) === emulated && (gain !== 0) === emulated));

        // layer 11 is the only one of its kind that is left, so it has nothing to take a pattern from
        const latest = await reportOf({sourceLayer: 6, schedule: "constant"});
        t.deepEqual(latest.layers.map(({emulated}) => emulated), layerList({7: true, 8: true, 9: true, 10: true, 12: true}, false));
        t.is(latest.layers[11]!.reason, source);
    });
}

function layerList<T, D = undefined>(values: Record<number, T>, otherwise?: D): Array<T | D> {
    return Array.from({length: layers}, (_, layer) => values[layer] ?? otherwise as D);
}
