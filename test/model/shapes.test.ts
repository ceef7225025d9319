import {execFile} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {getLlama, LlamaLogLevel} from "reattend";
import {compareWithReference} from "../support/formula.js";
import {ReferenceLlama} from "../support/ReferenceLlama.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Models of other shapes than the oracle's, against the reference.
 */

const makeModel = fileURLToPath(new URL("../../bench/make-model.js", import.meta.url));
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});

test.after.always(() => fs.rm(folder, {recursive: true}));

const shapes = [
    {layers: 2, heads: 3, kvHeads: 1, headSize: 64},
    {layers: 6, heads: 6, kvHeads: 2, headSize: 32},
    {layers: 4, heads: 4, kvHeads: 4, headSize: 80},
    {layers: 2, heads: 15, kvHeads: 5, headSize: 64},
    {layers: 3, heads: 2, kvHeads: 1, headSize: 128}
];

for (const [index, {layers, heads, kvHeads, headSize}] of shapes.entries()) {
    test.serial(`${layers} layers, ${heads} query and ${kvHeads} KV heads of ${headSize}`, async (t) => {
        const modelPath = path.join(folder, `${index}.gguf`);
        await promisify(execFile)(process.execPath, [
            makeModel, "--type", "F32", "--layers", `${layers}`, "--heads", `${heads}`, "--kv-heads", `${kvHeads}`,
            "--head-size", `${headSize}`, "--ffn", "64", "--vocabulary", "320", "--context", "512", "--output", modelPath
        ]);
        const model = await llama.loadModel({modelPath});
        const reference = await ReferenceLlama.read(modelPath);

        for (const options of [{strength: 1, normalize: false}, {strength: -0.5, normalize: true}])
            await compareWithReference(t, {
                reference, float32Model: model, model, tokens: randomTokens(90, 20 + index),
                options: {...options, schedule: "constant", thresholdNear: 0.1}, chunks: [70, 1, 5],
                uncertainty: 0.004 // with weights in F32 only keys and values are rounded
            });
        await model.dispose();
    });
}
