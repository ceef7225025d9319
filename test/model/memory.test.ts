// What emulation holds in memory does not depend on the length of the context.
import {execFile} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {Token} from "reattend";
import {randomTokens} from "../support/tokens.js";

const makeModel = fileURLToPath(new URL("../../bench/make-model.js", import.meta.url));
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));

test.after.always(() => fs.rm(folder, {recursive: true}));

const tooLarge = 100 * 1024 ** 3; // bytes: weights of the dense form for a batch of 65,536 in a context of 131,072, with three heads
const hasRoom = os.totalmem() >= tooLarge;
const withoutRoom = `a graph that there is no memory for is an error each time, and nothing is lost by it${
    hasRoom ? " [skipped: this machine has the memory]" : ""
}`;
(hasRoom ? test.skip : test)(withoutRoom, async (t) => {
    const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.disabled});
    const model = await llama.loadModel({modelPath: fileURLToPath(new URL("../../models/reattend-mini.gguf", import.meta.url))});
    const context = await model.createContext({
        contextSize: 131_072, batchSize: 65_536, ignoreMemorySafetyChecks: true, failedCreationRemedy: false
    });
    const sequence = context.getSequence();
    const tokens = randomTokens(10, 1) as Token[];

    const emulation = emulateAttention(context, {kernel: "dense"});
    for (let i = 0; i < 2; i++) {
        const message = /^There is not enough memory for the graphs of this context with attention emulation of kernel "dense" \(failed /;
        await t.throwsAsync(sequence.evaluateWithoutGeneratingNewTokens(tokens), {message});
        t.throws(() => emulation.report(), {message});
    }
    emulation.dispose();
    await t.notThrowsAsync(sequence.evaluateWithoutGeneratingNewTokens(tokens));
    await llama.dispose();
});

test("patterns of 32 heads take at most 8 MiB in batches of 512, in a context of any length", async (t) => {
    const modelPath = path.join(folder, "32-heads.gguf");
    await promisify(execFile)(process.execPath, [
        makeModel, "--layers", "2", "--heads", "32", "--kv-heads", "4", "--head-size", "32", "--ffn", "64", "--vocabulary", "400",
        "--context", "32768", "--output", modelPath
    ]);
    const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
    const model = await llama.loadModel({modelPath});

    const sizes: number[] = [];
    for (const contextSize of [1024, 8192, 32_768]) {
        const context = await model.createContext({contextSize, batchSize: 512, flashAttention: true, failedCreationRemedy: false});
        const emulation = emulateAttention(context, {strength: 0.2, threshold: 0.01, schedule: "constant"});
        const reserved = emulation.report().patternBytes;
        await context.getSequence().evaluateWithoutGeneratingNewTokens(randomTokens(600, 1) as Token[]);

        const {kernel, patternBytes} = emulation.report();
        t.is(kernel, "fused");
        t.true(patternBytes <= reserved, `${patternBytes} bytes in use, ${reserved} reserved`);
        sizes.push(reserved);
        await context.dispose();
    }
    t.log(`${sizes[0]} bytes`);
    t.true(sizes[0]! >= 32 * 512 * 99 * 4, "there is room for 99 keys in each row");
    t.true(sizes[0]! <= 8 * 1024 ** 2, `${sizes[0]} bytes`);
    t.deepEqual(new Set(sizes).size, 1, sizes.join(", "));
    await llama.dispose();
});
