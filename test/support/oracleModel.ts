import process from "node:process";
import {getLlama, LlamaLogLevel} from "reattend";
import type {LlamaContext, LlamaContextOptions, LlamaGpuType, LlamaModel} from "reattend";
import {oracleModelPath} from "./oracle.js";

/** `npm run check:gpu` has the tests of the oracle run on a GPU. */
const gpu = (process.env.REATTEND_TEST_GPU ?? false) as LlamaGpuType;

export const onGpu = gpu !== false;

/** The oracle's model, loaded once for each test file, on the CPU by default. */
export const oracleModel: LlamaModel = await (async () => {
    const llama = await getLlama({gpu, maxThreads: 2, logLevel: LlamaLogLevel.error});
    if (onGpu && (await llama.getGpuDeviceNames()).length === 0)
        throw new Error(`There is no device for ${gpu}`);
    return await llama.loadModel({modelPath: oracleModelPath, gpuLayers: onGpu ? "max" : undefined});
})();

/** A context of 256 tokens, or as asked for, that evaluates up to as many at once, on one thread. */
export async function createContext(options: LlamaContextOptions = {}): Promise<LlamaContext> {
    const contextSize = options.contextSize ?? 256;
    return await oracleModel.createContext({
        contextSize,
        batchSize: typeof contextSize === "number"
            ? contextSize * (options.sequences ?? 1)
            : undefined,
        threads: 1,
        flashAttention: true,
        failedCreationRemedy: false,
        ...options
    });
}

/** The three ways to the same numbers. */
export const kernels = [
    {name: "fused", flashAttention: true, kernel: "auto", reported: "fused"},
    {name: "dense, flash attention off", flashAttention: false, kernel: "auto", reported: "dense"},
    {name: "dense, flash attention on", flashAttention: true, kernel: "dense", reported: "dense"}
] as const;
