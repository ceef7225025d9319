import {joinBytes, unzigzag, weightOfLevel} from "../../inspect/packing.js";
import type {InspectionPageData, PageMeasures} from "../../inspect/pageData.js";

export type Side = "plain" | "steered";
export type View = Side | "difference";
export type MeasureName = keyof PageMeasures;

/** Both runs' values, of anything. */
export type Pair = {
    plain: number,
    steered: number
};

/** A key of a query's row. `NaN` stands for a weight that was not among the kept ones of its run. */
export type RowKey = Pair & {
    key: number
};

/** What the page shows. Layers and heads are given by their index among the captured ones. */
export class InspectionData {
    readonly source: InspectionPageData;
    readonly tokenCount: number;

    private readonly received: Record<Side, Uint32Array>;
    private readonly receivedBy: Record<Side, Uint32Array>;
    private readonly keyDistances: Uint32Array;
    private readonly weights: Record<Side, Uint32Array>;

    /** where each row's keys begin, and where the last one's end */
    private readonly rowStarts: Uint32Array;

    private constructor(source: InspectionPageData, unpacked: Unpacked) {
        this.source = source;
        this.tokenCount = source.tokens.texts.length;
        this.received = unpacked.received;
        this.receivedBy = unpacked.receivedBy;
        this.keyDistances = unpacked.keys;
        this.weights = unpacked.weights;
        this.rowStarts = new Uint32Array(unpacked.counts.length + 1);
        for (const [row, count] of unpacked.counts.entries())
            this.rowStarts[row + 1] = this.rowStarts[row]! + count;
    }

    static async unpack(source: InspectionPageData): Promise<InspectionData> {
        const {received, receivedBy, rows} = source;
        const [plainReceived, steeredReceived, plainBy, steeredBy, counts, keys, plain, steered] = await Promise.all([
            received.plain, received.steered, receivedBy.plain, receivedBy.steered, rows.counts, rows.keys, rows.plain, rows.steered
        ].map(unpackNumbers)) as [
            Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array
        ];
        return new InspectionData(source, {
            received: {plain: plainReceived, steered: addDifferences(plainReceived, steeredReceived)},
            receivedBy: {plain: plainBy, steered: steeredBy},
            counts,
            keys,
            weights: {plain, steered: addDifferences(plain, steered)}
        });
    }

    measure(name: MeasureName, layer: number, head: number): Pair {
        const {plain, steered} = this.source.measures;
        const at = layer * this.source.heads.length + head;
        return {plain: plain[name][at] ?? NaN, steered: steered[name][at] ?? NaN};
    }

    /** The mean weight that a token receives. */
    receivedAt(layer: number, head: number, token: number): Pair {
        const at = (layer * this.source.heads.length + head) * this.tokenCount + token;
        return {plain: weightOfLevel(this.received.plain[at]!), steered: weightOfLevel(this.received.steered[at]!)};
    }

    /** By how many queries a token's weight exceeds the threshold. */
    receivedByAt(layer: number, head: number, token: number): Pair {
        const at = (layer * this.source.heads.length + head) * this.tokenCount + token;
        return {plain: this.receivedBy.plain[at]!, steered: this.receivedBy.steered[at]!};
    }

    hasRows(layer: number): boolean {
        return this.source.rows.layers.includes(this.source.layers[layer]!);
    }

    /** The kept keys of a query's row by position, none where the layer's rows were left out. */
    row(layer: number, head: number, query: number): RowKey[] {
        const rowLayer = this.source.rows.layers.indexOf(this.source.layers[layer]!);
        if (rowLayer < 0)
            return [];

        const row = (rowLayer * this.source.heads.length + head) * this.tokenCount + query;
        const keys: RowKey[] = [];
        let key = 0;
        for (let i = this.rowStarts[row]!; i < this.rowStarts[row + 1]!; i++) {
            key += this.keyDistances[i]!;
            keys.push({key, plain: weightOf(this.weights.plain[i]!), steered: weightOf(this.weights.steered[i]!)});
        }
        return keys;
    }
}

type Unpacked = {
    received: Record<Side, Uint32Array>,
    receivedBy: Record<Side, Uint32Array>,
    counts: Uint32Array,
    keys: Uint32Array,
    weights: Record<Side, Uint32Array>
};

export function valueOf(view: View, {plain, steered}: Pair): number {
    switch (view) {
        case "plain": return plain;
        case "steered": return steered;
        case "difference": return steered - plain;
    }
}

function weightOf(level: number): number {
    return level === 0
        ? NaN
        : weightOfLevel(level);
}

async function unpackNumbers(packed: string): Promise<Uint32Array> {
    const binary = atob(packed);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++)
        bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return joinBytes(new Uint8Array(await new Response(stream).arrayBuffer()));
}

function addDifferences(levels: Uint32Array, differences: Uint32Array): Uint32Array {
    return levels.map((level, i) => level + unzigzag(differences[i]!));
}
