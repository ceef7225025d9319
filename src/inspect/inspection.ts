import type {TokenClass} from "./tokenClasses.js";

/**
 * What a capture saw. All arrays are row-major.
 *
 * n: tokens of the sequence so far, by position; L: captured layers; H: captured heads; R: kept query rows; K: `topK`.
 * Measures are of all query rows since the capture began, `NaN` where a layer has no such head.
 */
export type CapturedAttention = CapturedRows & {
    /** Number of query rows that the measures are of: each evaluated token is one. */
    readonly queries: number,

    /** Ids of the sequence's tokens, Int32 `[n]`; `-1` where a token is not known. */
    readonly tokens: Int32Array,

    /** Entropy of a row in nats, its weights divided by their sum; mean over rows, F32 `[L][H]`. */
    readonly entropy: Float32Array,

    /** Weight of the sequence's first token; mean over rows, F32 `[L][H]`. */
    readonly firstTokenMass: Float32Array,

    /** Weight of tokens that are special, space or punctuation; mean over rows, F32 `[L][H]`. */
    readonly nonSemanticMass: Float32Array,

    /**
     * Weight of the keys in the row's pattern: the keys that the same head of the source layer gives more than the threshold, without
     * the query's own key. Mean over rows, F32 `[L][H]`; `NaN` in layers before the source layer, or with another number of heads.
     */
    readonly agreement: Float32Array,

    /** Number of weights above the threshold, without the query's own key; mean over rows, F32 `[L][H]`. */
    readonly keysPerRow: Float32Array,

    /** Weight of each class of tokens, in the order of {@link tokenClasses}; mean over rows, F32 `[L][H][4]`. */
    readonly classMass: Float32Array,

    /** Weight that a token receives, mean over the queries that see it, itself left out; F32 `[L][H][n]`. */
    readonly received: Float32Array,

    /** How many queries give a token more than the threshold, itself left out; U32 `[L][H][n]`. */
    readonly receivedBy: Uint32Array
};

/** The query rows that a capture keeps, see {@link CapturedAttention}. */
export type CapturedRows = {
    /** Indices of the captured layers, ascending. Layers without attention that could be captured are left out. */
    readonly layers: readonly number[],

    /** Indices of the captured query heads, ascending. */
    readonly heads: readonly number[],

    /** n: how many tokens the sequence had so far, these rows' batch included. */
    readonly tokenCount: number,

    /** Positions of the kept query rows, U32 `[R]`. */
    readonly rowIndices: Uint32Array,

    /** Positions of the strongest keys of each row, strongest first, U32 `[L][H][R][K]`; `0xffffffff` where a row has fewer. */
    readonly topKeys: Uint32Array,

    /** Their weights, F32 `[L][H][R][K]`; `0` where a row has fewer. */
    readonly topWeights: Float32Array,

    /** Whole rows of weights, F32 `[L][H][R][n]`, if asked for; `0` where a row does not see a token. */
    readonly weights?: Float32Array,

    /**
     * The residual stream after each layer, F32 `[L][R][width]`, if asked for. `NaN` where a layer did not compute it: most models
     * compute the last layer only for tokens whose logits are wanted.
     */
    readonly hiddenStates?: Float32Array,

    /** The most probable next tokens if the model ended after each layer, if asked for. */
    readonly logitLens?: {
        /** U32 `[L][R][k]`, most probable first; `0xffffffff` where {@link CapturedRows.hiddenStates} would be `NaN` */
        readonly tokens: Uint32Array,

        /** F32 `[L][R][k]`, natural logarithms */
        readonly logProbabilities: Float32Array,
        readonly k: number
    },

    /**
     * A part of an array, without copying, by a name that stays the same whatever layers are captured: `"layers.12.attention.entropy"`
     * is a `[H]`, `"layers.12.attention.pattern"` a `[H][R][n]`, the weights themselves.
     * @throws {RangeError} if there is no such name; the message lists them
     * @example
     * const capture = captureAttention(context, {topK: 2});
     * await context.getSequence().evaluateWithoutGeneratingNewTokens([1, 5, 6]);
     * const {heads, rowIndices, get} = capture.read();
     * console.log(get("layers.1.attention.topKeys").length === heads.length * rowIndices.length * 2); // true
     */
    get(name: string): Float32Array | Uint32Array,

    /**
     * The names that {@link CapturedRows.get} knows.
     * @example
     * const capture = captureAttention(context, {layers: [1]});
     * await context.getSequence().evaluateWithoutGeneratingNewTokens([1, 5, 6]);
     * console.log(capture.read().names().includes("layers.1.attention.entropy")); // true
     */
    names(): string[]
};

/** The strongest keys of each query row in some layers, `[layers][H][n][topK]`; padded as in {@link CapturedRows}. */
export type InspectedRows = {
    readonly topKeys: Uint32Array,
    readonly topWeights: Float32Array
};

/** One text, evaluated plain and steered: what `reattend inspect` shows. */
export type Inspection = {
    version: 1,

    /** version of the package */
    reattend: string,
    model: {file: string, name: string, architecture: string, layers: number, heads: number},
    options: {strength: number, threshold: number, sourceLayer: number, schedule: unknown, pattern: string, normalize: boolean},
    tokens: Array<{id: number, text: string, class: TokenClass}>,
    plain: CapturedAttention,
    steered: CapturedAttention,

    /** Rows are many, so they may be of fewer layers than the measures. */
    rows: {layers: readonly number[], topK: number, plain: InspectedRows, steered: InspectedRows}
};

export type {TokenClass};
