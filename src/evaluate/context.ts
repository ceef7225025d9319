import type {LlamaContext, LlamaModel} from "node-llama-cpp";

export type EvaluationContextOptions = {
    /** how many tokens each sequence must hold */
    length: number,
    sequences: number,
    threads?: number,
    flashAttention?: boolean
};

/** With so many sequences, a small model spends little of its time outside the model, and a large one still fits. */
export const defaultSequences = 8;

/** Tokens in a batch: the largest that still fits where memory is short. */
const batchSize = 512;

/** A context whose sequences are evaluated side by side. */
export async function createEvaluationContext(
    model: LlamaModel, {length, sequences, threads, flashAttention}: EvaluationContextOptions
): Promise<LlamaContext> {
    return await model.createContext({contextSize: length, sequences, batchSize, threads, flashAttention});
}
