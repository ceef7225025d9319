import type {ExecutionContext} from "ava";
import type {AttentionEmulationOptions} from "reattend";
import {worstNmse} from "./nmse.js";
import {clearThreshold} from "./randomModel.js";

type Rows = ReadonlyArray<ArrayLike<number>>;

/** Rows of numbers that a model gives with an emulation, or with none: logits of positions, embeddings of texts. */
export type Evaluate = (emulation?: AttentionEmulationOptions) => Promise<Rows>;

/** What a value of the cache that is rounded to F16 the other way may make: it happens in some evaluations and not in others. */
export const roundingNmse = 1e-7;

/**
 * Checks the fused kernels against the dense form in any use of a random model (see randomModel.ts), of which no weight is near
 * the threshold.
 */
export async function compareWithDense(
    t: ExecutionContext, evaluate: Evaluate, options: AttentionEmulationOptions = {}, leastScale = roundingNmse
): Promise<{scale: number, expected: Rows}> {
    const emulation = {strength: 0.5, threshold: clearThreshold, ...options};
    const comparison = await compareAnyWithDense(t, evaluate, emulation, leastScale);

    for (const factor of [0.8, 1.25]) {
        const other = await evaluate({...emulation, threshold: factor * emulation.threshold, kernel: "dense"});
        t.is(worstNmse(other, comparison.expected), 0, "a weight is near the threshold");
    }
    return comparison;
}

/**
 * Checks the fused kernels against the dense form in any use of a model. What flash attention and plain attention differ by at
 * strength 0 is the measure of what they may differ by at any other.
 * @param leastScale - is taken if it is more
 * @returns this measure, and what the dense form gives
 */
export async function compareAnyWithDense(
    t: ExecutionContext, evaluate: Evaluate, emulation: AttentionEmulationOptions, leastScale = roundingNmse
): Promise<{scale: number, expected: Rows}> {
    const plain = await evaluate();
    t.is(worstNmse(await evaluate({...emulation, strength: 0}), plain), 0, "strength 0 changes something");

    const scale = Math.max(worstNmse(await evaluate({...emulation, strength: 0, kernel: "dense"}), plain), leastScale);
    const expected = await evaluate({...emulation, kernel: "dense"});
    const error = worstNmse(await evaluate(emulation), expected);
    const effect = worstNmse(plain, expected);
    t.log(`NMSE ${error.toExponential(1)}, the measure is ${scale.toExponential(1)}, the effect is ${effect.toExponential(1)}`);
    t.true(effect > 20 * scale, "the case would not show a mistake");
    t.true(error <= 5 * scale, `NMSE ${error}, the measure is ${scale}`);
    return {scale, expected};
}
