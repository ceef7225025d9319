import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {getLlama, LlamaLogLevel, emulateAttention} from "reattend";
import {compareWithDense} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {randomText, writeRandomModel} from "../support/randomModel.js";

/*
 * A mixture of experts has many nodes in its graph for each tensor, by whose number llama.cpp tells how many to make room for. The
 * dense form's come on top; without room of their own, the process ends.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const modelPath = path.join(folder, "experts.gguf");
await writeRandomModel(modelPath, {architecture: "llama", layers: 24, experts: 8, seed: 1});
const tokens = randomText(40, 1);

const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath});

test.after.always(async () => {
    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

test("fused and dense, normalized", async (t) => {
    await compareWithDense(t, async (emulation) => {
        // of two sequences, as they take more nodes than one
        const context = await model.createContext({
            contextSize: 64, batchSize: 64, sequences: 2, flashAttention: emulation?.kernel !== "dense"
        });
        if (emulation != null)
            emulateAttention(context, emulation);
        const logits = await evaluateInChunks(context.getSequence(), tokens, [tokens.length]);
        await context.dispose();
        return logits;
    }, {normalize: true});
});
