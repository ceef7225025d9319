import type {AddonMeasures, AddonRows} from "../binding.js";
import {tokenClasses} from "./tokenClasses.js";
import type {CapturedAttention, CapturedRows} from "./inspection.js";
import type {ResolvedAttentionCaptureOptions} from "./options.js";

/** The arrays that belong to each layer, by the name of their part; they have the layer as their first dimension. */
type LayerArrays = Record<string, Float32Array | Uint32Array | undefined>;

/** What the addon gave, as users see it. */
export function buildRows(rows: AddonRows, options: ResolvedAttentionCaptureOptions): CapturedRows {
    return withNames(partsOf(rows, options), arraysOfRows(rows));
}

/** As {@link buildRows}, with the measures. */
export function buildAttention(
    measures: AddonMeasures, rows: AddonRows, options: ResolvedAttentionCaptureOptions
): CapturedAttention {
    const {queries, tokens, entropy, firstTokenMass, agreement, keysPerRow, classMass, received, receivedBy} = measures;
    const nonSemanticMass = Float32Array.from(entropy, (_, i) => (
        tokenClasses.reduce((sum, name, c) => name === "word" ? sum : sum + classMass[i * tokenClasses.length + c]!, 0)
    ));
    const ofLayers = {entropy, firstTokenMass, nonSemanticMass, agreement, keysPerRow, classMass, received, receivedBy};
    const attention = Object.fromEntries(Object.entries(ofLayers).map(([name, array]) => [`attention.${name}`, array]));

    return withNames(
        {...partsOf(rows, options), queries, tokens, ...ofLayers},
        {...attention, ...arraysOfRows(rows)}
    );
}

function partsOf(rows: AddonRows, options: ResolvedAttentionCaptureOptions): Omit<CapturedRows, "get" | "names"> {
    const {layers, tokenCount, rowIndices, topKeys, topWeights, weights, hiddenStates, lensTokens, lensLogProbabilities} = rows;
    return {
        layers: Array.from(layers),
        heads: options.heads,
        tokenCount,
        rowIndices,
        topKeys,
        topWeights,
        ...weights != null && {weights},
        ...hiddenStates != null && {hiddenStates},
        ...lensTokens != null && lensLogProbabilities != null && {
            logitLens: {tokens: lensTokens, logProbabilities: lensLogProbabilities, k: options.logitLens}
        }
    };
}

function arraysOfRows({topKeys, topWeights, weights, hiddenStates, lensTokens, lensLogProbabilities}: AddonRows): LayerArrays {
    return {
        "attention.topKeys": topKeys,
        "attention.topWeights": topWeights,
        "attention.pattern": weights,
        "hiddenState": hiddenStates,
        "logitLens.tokens": lensTokens,
        "logitLens.logProbabilities": lensLogProbabilities
    };
}

function withNames<Parts extends {layers: readonly number[]}>(
    parts: Parts, arrays: LayerArrays
): Parts & Pick<CapturedRows, "get" | "names"> {
    const {layers} = parts;
    const names = () => layers.flatMap((layer) => (
        Object.entries(arrays).flatMap(([name, array]) => array != null && array.length > 0 ? [`layers.${layer}.${name}`] : [])
    ));
    const get = (name: string) => {
        const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
        const index = layers.indexOf(Number(layer));
        const array = part != null && Object.hasOwn(arrays, part)
            ? arrays[part]
            : undefined;
        if (index < 0 || array == null || array.length === 0)
            throw new RangeError(`Nothing of the name ${name} was captured; there are: ${names().join(", ") || "none"}`);

        const size = array.length / layers.length;
        return array.subarray(index * size, (index + 1) * size);
    };
    return {...parts, get, names};
}
