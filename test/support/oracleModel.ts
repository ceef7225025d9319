import {getLlama, LlamaLogLevel} from "reattend";
import type {LlamaContext, LlamaContextOptions, LlamaModel} from "reattend";
import {oracleModelPath} from "./oracle.js";

/** The oracle's model, loaded once for each test file, on the CPU. */
export const oracleModel: LlamaModel = await (async () => {
    const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
    return await llama.loadModel({modelPath: oracleModelPath});
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
