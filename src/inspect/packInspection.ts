import {promisify} from "node:util";
import {deflate} from "node:zlib";
import {levelOfWeight, splitBytes, zigzag} from "./packing.js";
import type {CapturedAttention, Inspection} from "./inspection.js";
import type {InspectionPageData, PackedNumbers, PageMeasures} from "./pageData.js";

/** Keys kept in the page, at about 3 bytes each: keeps it below 20 MB. */
export const mostKeysInPage = 4_500_000;

/** A row is shown with this many keys, or fewer layers have rows. */
const leastKeysPerRow = 8;

/** Weights below can't be told from nothing in the page. */
const leastWeightShown = 1e-4;

export async function packInspection(
    {reattend, model, options, tokens, plain, steered, rows}: Inspection, {mostKeys = mostKeysInPage}: {mostKeys?: number} = {}
): Promise<InspectionPageData> {
    const [plainReceived, steeredReceived] = levelsAndDifferences(plain.received, steered.received);
    return {
        reattend,
        model,
        options,
        tokens: {ids: tokens.map(({id}) => id), texts: tokens.map(({text}) => text), classes: tokens.map((token) => token.class)},
        layers: plain.layers,
        heads: plain.heads,
        measures: {plain: measuresOf(plain), steered: measuresOf(steered)},
        received: {plain: await pack(plainReceived), steered: await pack(steeredReceived)},
        receivedBy: {plain: await pack(plain.receivedBy), steered: await pack(steered.receivedBy)},
        rows: await packRows(rows, plain.heads.length, tokens.length, mostKeys)
    };
}

function measuresOf({entropy, firstTokenMass, nonSemanticMass, agreement, keysPerRow}: CapturedAttention): PageMeasures {
    const rounded = (values: Float32Array) => Array.from(values, (value) => Number.isFinite(value)
        ? Number(value.toPrecision(5))
        : null);
    return {
        entropy: rounded(entropy),
        firstTokenMass: rounded(firstTokenMass),
        nonSemanticMass: rounded(nonSemanticMass),
        agreement: rounded(agreement),
        keysPerRow: rounded(keysPerRow)
    };
}

/** The levels of plain weights, and how far those of the steered ones are from them. */
function levelsAndDifferences(plain: ArrayLike<number>, steered: ArrayLike<number>): [Uint32Array, Uint32Array] {
    const levels = new Uint32Array(plain.length);
    const differences = new Uint32Array(plain.length);
    for (let i = 0; i < levels.length; i++) {
        levels[i] = levelOfWeight(plain[i]!);
        differences[i] = zigzag(levelOfWeight(steered[i]!) - levels[i]!);
    }
    return [levels, differences];
}

async function packRows(
    rows: Inspection["rows"], heads: number, tokens: number, mostKeys: number
): Promise<InspectionPageData["rows"]> {
    const rowsPerLayer = heads * tokens;
    const {keysKept, layers} = planRows(rows, rowsPerLayer, mostKeys);
    const merge = rowMerger(rows, tokens, keysKept);

    const counts = new Uint32Array(layers.length * rowsPerLayer);
    const keys: number[] = [];
    const plainWeights: number[] = [];
    const steeredWeights: number[] = [];
    for (const [i, layer] of layers.entries()) {
        const start = rows.layers.indexOf(layer) * rowsPerLayer;
        for (let row = 0; row < rowsPerLayer; row++) {
            const merged = merge(start + row);
            counts[i * rowsPerLayer + row] = merged.length;
            let previous = 0;
            for (const {key, plain, steered} of merged) {
                keys.push(key - previous);
                plainWeights.push(plain);
                steeredWeights.push(steered);
                previous = key;
            }
        }
    }
    const [plain, steered] = levelsAndDifferences(plainWeights, steeredWeights);
    return {
        layers,
        keysKept,
        counts: await pack(counts),
        keys: await pack(Uint32Array.from(keys)),
        plain: await pack(plain),
        steered: await pack(steered)
    };
}

/** How many keys of a row fit into the page, and where even few of each don't, which layers have rows: evenly spread ones. */
function planRows(
    {layers, topK, plain}: Inspection["rows"], rowsPerLayer: number, mostKeys: number
): {keysKept: number, layers: readonly number[]} {
    // rows that have keys at each rank, of those that are strong enough to be shown
    const strongAtRank = new Float64Array(topK);
    for (let i = 0; i < plain.topWeights.length; i++)
        strongAtRank[i % topK]! += plain.topWeights[i]! >= leastWeightShown ? 1 : 0;

    let total = 0;
    for (let rank = 0; rank < topK; rank++) {
        if (total + strongAtRank[rank]! > mostKeys && rank >= leastKeysPerRow)
            return {keysKept: rank, layers};
        total += strongAtRank[rank]!;
        if (rank + 1 >= leastKeysPerRow && total > mostKeys) {
            const fitting = Math.max(1, Math.floor(layers.length * mostKeys / total));
            return {keysKept: rank + 1, layers: spread(layers, fitting)};
        }
    }
    return {keysKept: topK, layers: rowsPerLayer === 0 ? [] : layers};
}

/** So many of the items, evenly spread, the first and the last among them. */
export function spread<Item>(items: readonly Item[], count: number): Item[] {
    if (count >= items.length)
        return [...items];
    return Array.from({length: count}, (_, i) => items[Math.round(i * (items.length - 1) / Math.max(count - 1, 1))]!);
}

type MergedKey = {key: number, plain: number, steered: number};

/** Gives the strongest keys of a row, plain or steered, by position. A weight that was not among the captured ones is 0. */
function rowMerger({topK, plain, steered}: Inspection["rows"], tokens: number, keysKept: number): (row: number) => MergedKey[] {
    const entryOfKey = new Array<MergedKey | undefined>(tokens);

    return (row) => {
        const entries: MergedKey[] = [];
        for (const [name, {topKeys, topWeights}] of [["plain", plain], ["steered", steered]] as const) {
            for (let i = row * topK; i < (row + 1) * topK; i++) {
                const key = topKeys[i]!;
                if (key >= tokens || topWeights[i]! < leastWeightShown)
                    continue;
                let entry = entryOfKey[key];
                if (entry == null) {
                    entry = {key, plain: 0, steered: 0};
                    entryOfKey[key] = entry;
                    entries.push(entry);
                }
                entry[name] = topWeights[i]!;
            }
        }
        for (const {key} of entries)
            entryOfKey[key] = undefined;

        return entries
            .sort((a, b) => Math.max(b.plain, b.steered) - Math.max(a.plain, a.steered))
            .slice(0, keysKept)
            .sort((a, b) => a.key - b.key);
    };
}

async function pack(numbers: Uint32Array): Promise<PackedNumbers> {
    return (await promisify(deflate)(splitBytes(numbers))).toString("base64");
}
