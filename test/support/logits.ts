import type {LlamaContextSequence, Token} from "reattend";

/**
 * Evaluates tokens in chunks of the given sizes; what is left over goes in one by one.
 * @returns the raw logits of each position
 */
export async function evaluateInChunks(
    sequence: LlamaContextSequence, tokens: readonly number[], sizes: readonly number[] = []
): Promise<Float32Array[]> {
    const logits: Float32Array[] = [];
    for (let start = 0, i = 0; start < tokens.length; i++) {
        const end = Math.min(start + (sizes[i] ?? 1), tokens.length);
        logits.push(...await evaluateAtOnce(sequence, tokens.slice(start, end)));
        start = end;
    }
    return logits;
}

/** Evaluates tokens in one batch; returns the raw logits of each position. */
export async function evaluateAtOnce(sequence: LlamaContextSequence, tokens: readonly number[]): Promise<Float32Array[]> {
    const outputs = await sequence.controlledEvaluate(
        tokens.map((token) => [token as Token, {generateNext: {logits: true}}])
    );
    return outputs.map((output) => {
        const values = output?.next.logits;
        if (values == null)
            throw new Error("The evaluation gave no logits");

        const logits = new Float32Array(values.size);
        for (const [token, value] of values)
            logits[token] = value;
        return logits;
    });
}
