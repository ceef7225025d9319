import type {AddonLayerReport} from "../binding.js";

/** What is done in each layer. */
export type AttentionEmulationReport = {
    /**
     * How the changed layers are computed.
     * - **`"fused"`** - all of them inside flash attention, at nearly no cost.
     * - **`"dense"`** - one of them at least with its attention weights held in memory, which is slower and takes
     * memory that grows with the context.
     * - **`"none"`** - no layer is changed.
     */
    readonly kernel: "fused" | "dense" | "none",

    /** One entry for each layer of the model, in order. */
    readonly layers: readonly AttentionEmulationLayer[],

    /** Memory of the pattern, in bytes, for the largest batch that the context can evaluate. Held while a batch is evaluated only. */
    readonly patternBytes: number
};

export type AttentionEmulationLayer = {
    /** Index of the layer in the model, from 0. */
    readonly index: number,

    /**
     * The layer's gain as it is now: the context's strength times the schedule's gain. Weights of chosen keys are multiplied by
     * `1 + gain`. An array with a gain for each head if the schedule has such, and `0` where the layer is left alone.
     */
    readonly gain: number | readonly number[],

    /** Whether the layer is changed. */
    readonly emulated: boolean,

    /** How the layer is computed; absent if it is left alone. */
    readonly kernel?: "fused" | "dense",

    /** Why the layer is left alone; absent if it is changed. */
    readonly reason?: string
};

type ReportInput = {
    layers: readonly AddonLayerReport[],
    strength: number,

    /** of each layer and head */
    gains: Float64Array,
    gainPerHead: boolean,
    patternBytes: number
};

export function buildReport({layers, strength, gains, gainPerHead, patternBytes}: ReportInput): AttentionEmulationReport {
    const emulated = layers.filter((layer) => layer.emulated);
    const heads = gains.length / layers.length;

    const gainOf = (index: number) => {
        const perHead = Array.from(gains.subarray(index * heads, (index + 1) * heads), (gain) => strength * gain);
        return gainPerHead
            ? perHead
            : perHead[0] ?? 0;
    };

    return {
        kernel: emulated.length === 0
            ? "none"
            : emulated.every((layer) => layer.fused)
                ? "fused"
                : "dense",
        layers: layers.map((layer, index) => (
            layer.emulated
                ? {index, gain: gainOf(index), emulated: true, kernel: layer.fused ? "fused" : "dense"}
                : {index, gain: 0, emulated: false, reason: layer.reason}
        )),
        patternBytes
    };
}
