import {emulateAttention} from "reattend";
import type {AttentionEmulationOptions, LlamaContextOptions, LlamaModel} from "reattend";
import type {ExecutionContext} from "ava";
import {evaluateInChunks} from "./logits.js";
import {allowedNmse, worstNmse} from "./nmse.js";
import {linearGain} from "./ReferenceLlama.js";
import type {ReferenceEmulation, ReferenceLlama} from "./ReferenceLlama.js";

/** What 32-bit arithmetic comes to in the dense form; a mistake in the formula is a million times that. */
const allowedFloat32Nmse = 1e-9;

type Options = Omit<AttentionEmulationOptions, "threshold" | "kernel"> & {
    /** about which a threshold is looked for that no weight is too close to */
    thresholdNear?: number
};

type Comparison = {
    reference: ReferenceLlama,

    /** the model with all weights in F32 */
    float32Model: LlamaModel,

    /** the model whose attention is tried with F16 keys and values, fused and dense */
    model: LlamaModel,
    tokens: readonly number[],
    options: Options,

    /** sizes of the first chunks that the tokens are evaluated in, the rest goes in one by one */
    chunks: readonly number[],

    /** how far from the threshold, relative to it, a weight must be for F16 not to decide on which side it falls */
    uncertainty?: number
};

/**
 * Checks all kernels against the reference: the dense one in 32 bits at every position and strictly, all of them with F16 at the
 * positions for which it is certain what is chosen.
 */
export async function compareWithReference(
    t: ExecutionContext,
    {reference, float32Model, model, tokens, options: {thresholdNear = 0.01, ...options}, chunks, uncertainty = 0.01}: Comparison
): Promise<void> {
    const weights = reference.attentionWeights(tokens, options.sourceLayer ?? 0);
    const threshold = thresholdInGap(weights, thresholdNear);
    const expected = reference.logits(tokens, emulationOf(reference, {...options, threshold}));
    t.true(worstNmse(expected, reference.logits(tokens)) > 100 * allowedNmse, "the case would not show a mistake");

    const compare = async (
        name: string, reported: "fused" | "dense", kernel: "auto" | "dense", contextModel: LlamaModel, contextOptions: LlamaContextOptions,
        positions: readonly number[], allowed: number
    ) => {
        const context = await contextModel.createContext({
            contextSize: tokens.length + 1, batchSize: tokens.length, threads: 1, failedCreationRemedy: false, ...contextOptions
        });
        const emulation = emulateAttention(context, {...options, threshold, kernel});
        t.is(emulation.report().kernel, reported);

        const logits = await evaluateInChunks(context.getSequence(), tokens, chunks);
        const error = worstNmse(positions.map((i) => logits[i]!), positions.map((i) => expected[i]!));
        t.log(`${name}: NMSE ${error.toExponential(1)}`);
        t.true(error <= allowed, `${name}: NMSE ${error}`);
        await context.dispose();
    };

    const all = tokens.map((_, position) => position);
    await compare("dense, F32", "dense", "auto", float32Model, {
        flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
    }, all, allowedFloat32Nmse);

    const certain = all.filter((position) => weights.every((rows) => (
        rows[position]!.subarray(0, position).every((weight) => Math.abs(weight / threshold - 1) > uncertainty)
    )));
    t.log(`threshold ${threshold.toPrecision(4)}, ${all.length - certain.length} of ${all.length} positions left out with F16`);
    t.true(certain.length >= 0.7 * all.length, "too many positions are left out");
    await compare("fused, F16", "fused", "auto", model, {flashAttention: true}, certain, allowedNmse);
    await compare("dense, F16", "dense", "auto", model, {flashAttention: false}, certain, allowedNmse);
    await compare("dense in place of flash attention, F16", "dense", "dense", model, {flashAttention: true}, certain, allowedNmse);
}

function emulationOf(reference: ReferenceLlama, options: AttentionEmulationOptions & {threshold: number}): ReferenceEmulation {
    const {strength = 0.2, schedule = "linear", sourceLayer = 0, pattern = "early-layer", seed = 0, normalize = false, threshold} = options;
    const linear = linearGain(reference.layerCount);
    return {
        strength,
        threshold,
        sourceLayer,
        pattern,
        seed,
        normalize,
        gain: (layer, head) => {
            if (schedule === "linear")
                return linear(layer);
            if (schedule === "constant")
                return 1;
            const gain = schedule[layer]!;
            return typeof gain === "number"
                ? gain
                : gain[head]!;
        }
    };
}

/** The middle of the widest gap between two weights, own keys left out. */
function thresholdInGap(weights: readonly Float64Array[][], near: number): number {
    const close = weights
        .flatMap((rows) => rows.flatMap((row, position) => Array.from(row.subarray(0, position))))
        .filter((weight) => weight > near / 1.3 && weight < near * 1.3)
        .sort((a, b) => a - b);

    let widest = 0;
    let threshold = near;
    for (let i = 1; i < close.length; i++) {
        const gap = close[i]! / close[i - 1]!;
        if (gap > widest) {
            widest = gap;
            threshold = (close[i]! + close[i - 1]!) / 2;
        }
    }
    return threshold;
}
