import {seededRandom} from "#dist/random.js";
import type {CapturedAttention, InspectedRows, Inspection, TokenClass} from "#dist/inspect/inspection.js";

export type SyntheticShape = {
    tokens: number,
    layers: number,
    heads: number,

    /** keys kept for each row */
    topK: number,
    seed?: number,

    /** texts of tokens to use instead of made-up ones, from the second token on */
    texts?: readonly string[]
};

/*
 * Data for tests of what shows it, with what real attention has: a sink on the first token that grows with depth, heads that look at
 * the tokens just before or at a few that carry meaning, and weights that emulation raised. Few keys of a row have weight, so that
 * shapes of large models are made in seconds.
 */

const sourceLayer = 0;
const threshold = 0.01;
const strength = 0.5;
const classes: readonly TokenClass[] = ["special", "space", "punctuation", "word"];
const words = "the a of and key museum station tower school where is Alice Max later people garden river night old letter".split(" ");

export function syntheticInspection({tokens: n, layers, heads, topK, seed = 1, texts}: SyntheticShape): Inspection {
    const random = seededRandom(seed);
    const tokens = Array.from({length: n}, (_, i): Inspection["tokens"][number] => {
        if (i === 0)
            return {id: 1, text: "<s>", class: "special"};
        const given = texts?.[i - 1];
        if (given != null)
            return {id: 10, text: given, class: "word"};
        const draw = random();
        if (draw < 0.03)
            return {id: 2, text: "\n", class: "space"};
        if (draw < 0.14)
            return {id: 3 + (i % 2), text: i % 2 === 0 ? "," : ".", class: "punctuation"};
        const word = Math.floor(random() * words.length);
        return {id: 10 + word, text: ` ${words[word]}`, class: "word"};
    });

    const patterns = Array.from({length: heads}, () => new Array<Set<number>>(n));
    const layerIndices = Array.from({length: layers}, (_, layer) => layer);
    const plain = capture(0);
    const steered = capture(strength);
    return {
        version: 1,
        reattend: "0.1.0",
        model: {file: "synthetic.gguf", name: "Synthetic", architecture: "llama", layers, heads},
        options: {strength, threshold, sourceLayer, schedule: "linear", pattern: "early-layer", normalize: false},
        tokens,
        plain,
        steered,
        rows: {layers: layerIndices, topK, plain: rowsOf(plain), steered: rowsOf(steered)}
    };

    function rowsOf({topKeys, topWeights}: CapturedAttention): InspectedRows {
        return {topKeys, topWeights};
    }

    function capture(strength: number): CapturedAttention {
        const size = layers * heads;
        const made = {
            layers: layerIndices,
            heads: Array.from({length: heads}, (_, head) => head),
            queries: n,
            tokens: Int32Array.from(tokens, ({id}) => id),
            entropy: new Float32Array(size),
            firstTokenMass: new Float32Array(size),
            nonSemanticMass: new Float32Array(size),
            agreement: new Float32Array(size),
            keysPerRow: new Float32Array(size),
            classMass: new Float32Array(size * 4),
            received: new Float32Array(size * n),
            receivedBy: new Uint32Array(size * n),
            tokenCount: n,
            rowIndices: Uint32Array.from({length: n}, (_, row) => row),
            topKeys: new Uint32Array(size * n * topK).fill(0xffffffff),
            topWeights: new Float32Array(size * n * topK)
        };

        for (let layer = 0; layer < layers; layer++) {
            const depth = layer / Math.max(layers - 1, 1);
            const gain = layer > sourceLayer ? strength * (1 - depth) : 0;
            for (let head = 0; head < heads; head++) {
                const random = seededRandom(seed * 7919 + layer * 131 + head);
                const at = layer * heads + head;
                const locality = random();
                const sink = depth * (1.5 + 4 * random()) - 1;

                for (let query = 0; query < n; query++) {
                    const row = candidateKeys(query, random)
                        .map((key): [number, number] => {
                            const isWord = tokens[key]!.class === "word";
                            const near = locality * 4 / (1 + 0.5 * (query - key));
                            const kind = isWord ? 1.2 * (1 - depth) : 1.5 * depth - 0.5;
                            return [key, Math.exp(near + kind + (key === 0 ? sink : 0) + 1.5 * random())];
                        });
                    const sum = row.reduce((total, [, weight]) => total + weight, 0);
                    const weights = row.map(([key, weight]): [number, number] => [key, weight / sum]);
                    if (layer === sourceLayer)
                        patterns[head]![query] = new Set(
                            weights.filter(([key, weight]) => weight > threshold && key !== query).map(([key]) => key)
                        );
                    const pattern = patterns[head]![query]!;
                    for (const entry of weights)
                        entry[1] *= pattern.has(entry[0]) ? 1 + gain : 1;
                    addRow(made, at, query, weights, pattern);
                }
                for (let key = 0; key < n; key++)
                    made.received[at * n + key]! /= Math.max(n - 1 - key, 1);
            }
        }
        return {
            ...made,
            get: () => {
                throw new RangeError("synthetic data has no names");
            },
            names: () => []
        };
    }

    function addRow(
        made: Omit<CapturedAttention, "get" | "names">, at: number, query: number, weights: Array<[number, number]>, pattern: Set<number>
    ): void {
        const sum = weights.reduce((total, [, weight]) => total + weight, 0);
        for (const [key, weight] of weights) {
            const share = weight / sum;
            const kind = classes.indexOf(tokens[key]!.class);
            made.entropy[at]! -= share * Math.log(share) / n;
            made.classMass[at * 4 + kind]! += weight / n;
            made.nonSemanticMass[at]! += kind === 3 ? 0 : weight / n;
            made.firstTokenMass[at]! += key === 0 ? weight / n : 0;
            made.agreement[at]! += pattern.has(key) ? weight / n : 0;
            if (key !== query) {
                made.keysPerRow[at]! += weight > threshold ? 1 / n : 0;
                made.received[at * n + key]! += weight;
                made.receivedBy[at * n + key]! += weight > threshold ? 1 : 0;
            }
        }
        const strongest = weights.sort((a, b) => b[1] - a[1]).slice(0, topK);
        for (const [i, [key, weight]] of strongest.entries()) {
            made.topKeys[(at * n + query) * topK + i] = key;
            made.topWeights[(at * n + query) * topK + i] = weight;
        }
    }
}

/** The first token, those just before, and some others, which the random numbers choose. */
function candidateKeys(query: number, random: () => number): number[] {
    const keys = new Set([0, query]);
    for (let back = 1; back <= 4; back++)
        keys.add(Math.max(query - back, 0));
    for (let i = 0; i < 6; i++)
        keys.add(Math.floor(random() * (query + 1)));
    return [...keys];
}
