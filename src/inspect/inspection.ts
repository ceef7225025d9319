// What attention capture gives, and what `reattend inspect` prints of it. Arrays are row-major typed arrays.

/** What one evaluated text gave, plain or steered. n = tokens, L = layers captured, H = heads captured, K = topK. */
export type CapturedAttention = {
    /** indices of the layers and heads that the arrays below hold, ascending */
    layers: number[],
    heads: number[],
    queries: number,                     // n: rows seen (each token of the text is one query row)

    /** Means over query rows, F32 [L][H]. */
    entropy: Float32Array,               // nats, of the (renormalised) row
    firstTokenMass: Float32Array,
    nonSemanticMass: Float32Array,       // special + space + punctuation
    agreement: Float32Array,             // mass on the keys that the source layer's pattern lists for that row and head (own key excluded); the source layer itself too
    keysPerRow: Float32Array,            // weights above the threshold, own key excluded
    /** F32 [L][H][4], mean mass per token class: special, space, punctuation, word */
    classMass: Float32Array,

    /** F32 [L][H][n]: the mean weight that a token receives from the queries that can see it, itself excluded. */
    received: Float32Array,
    /** U32 [L][H][n]: by how many queries a token's weight exceeds the threshold (outliers: table like the paper's) */
    receivedBy: Uint32Array,

    /** The strongest keys of every captured query row: U32/F32 [L][H][rows][K], padded with 0xffffffff / 0. rows = rowIndices.length */
    rowIndices: Uint32Array,             // which query rows are kept (option `queries`; default all where topK is given)
    topKeys: Uint32Array,
    topWeights: Float32Array,
    /** Whole rows, when asked: F32 [L][H][rows][n] */
    weights?: Float32Array,

    /** when asked: F32 [L][n][width], the residual stream after each captured layer; logit lens: token ids and log-probabilities [L][n][k] */
    hiddenStates?: Float32Array,
    logitLens?: {tokens: Uint32Array, logProbabilities: Float32Array, k: number},

    /** access by stable name: "layers.12.attention.entropy", "layers.12.attention.pattern", "layers.12.hiddenState", ... */
    get(name: string): Float32Array | Uint32Array
};

export type TokenClass = "special" | "space" | "punctuation" | "word";

/** What `reattend inspect --json` prints and the HTML report embeds. */
export type Inspection = {
    version: 1,
    reattend: string,                    // version of the package
    model: {file: string, name: string, architecture: string, layers: number, heads: number},
    options: {strength: number, threshold: number, sourceLayer: number, schedule: unknown, pattern: string, normalize: boolean},
    tokens: Array<{id: number, text: string, class: TokenClass}>,
    plain: CapturedAttention,
    steered: CapturedAttention
};
