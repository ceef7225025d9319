import {execFile} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {emulateAttention} from "reattend";
import type {AttentionEmulationOptions, LlamaModel} from "reattend";
import {compareAnyWithDense} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Quantised weights have matrix multiplications of their own in llama.cpp, on some CPUs (AMX) with instructions that nothing else uses.
 */

const makeModel = fileURLToPath(new URL("../../bench/make-model.js", import.meta.url));
const shape = ["--layers", "3", "--heads", "4", "--kv-heads", "2", "--head-size", "32", "--ffn", "256", "--vocabulary", "320", "--context", "256"];
const tokens = randomTokens(90, 3);

let folder: string;
let models: Record<"Q8_0" | "F32", LlamaModel>;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    models = {Q8_0: await load("Q8_0"), F32: await load("F32")};
});

test.after.always(() => fs.rm(folder, {recursive: true}));

for (const threads of [1, 2]) {
    test.serial(`weights of Q8_0 give what the same in F32 give, ${threads} threads`, async (t) => {
        const error = worstNmse(await evaluate(models.Q8_0, threads), await evaluate(models.F32, threads));
        t.log(`NMSE ${error.toExponential(1)}`);
        t.true(error < 1e-3);
    });

    test.serial(`weights of Q8_0: fused and dense, ${threads} threads`, async (t) => {
        await compareAnyWithDense(t, (emulation) => evaluate(models.Q8_0, threads, emulation), {strength: 0.5});
    });
}

async function load(type: string): Promise<LlamaModel> {
    const modelPath = path.join(folder, `${type}.gguf`);
    await promisify(execFile)(process.execPath, [makeModel, ...shape, "--type", type, "--output", modelPath]);
    return await oracleModel.llama.loadModel({modelPath});
}

async function evaluate(model: LlamaModel, threads: number, emulation?: AttentionEmulationOptions): Promise<Float32Array[]> {
    const context = await model.createContext({
        contextSize: 256, batchSize: 256, threads, flashAttention: true, failedCreationRemedy: false
    });
    if (emulation != null)
        emulateAttention(context, emulation);
    const logits = await evaluateInChunks(context.getSequence(), tokens, [60, 1, 20]);
    await context.dispose();
    return logits;
}
