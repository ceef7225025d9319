import type {Inspection} from "./inspection.js";

/** Whole numbers: base64 of the zlib stream of `splitBytes`. */
export type PackedNumbers = string;

/** Means over query rows, `[layers][heads]`; `null` where there is none. */
export type PageMeasures = Record<
    "entropy" | "firstTokenMass" | "nonSemanticMass" | "agreement" | "keysPerRow",
    ReadonlyArray<number | null>
>;

/** What the page has of an inspection. Weights are levels (packing.ts), steered ones as differences from plain. */
export type InspectionPageData = Pick<Inspection, "reattend" | "model" | "options"> & {
    tokens: {ids: number[], texts: string[], classes: string[]},
    layers: readonly number[],
    heads: readonly number[],
    measures: {plain: PageMeasures, steered: PageMeasures},

    /** `[layers][heads][tokens]` */
    received: {plain: PackedNumbers, steered: PackedNumbers},
    receivedBy: {plain: PackedNumbers, steered: PackedNumbers},

    rows: {
        layers: readonly number[],

        /** the most keys that a row has here */
        keysKept: number,

        /** how many keys each row has, `[rows.layers][heads][tokens]`; the rest is one behind the other in this order */
        counts: PackedNumbers,

        /** distance from the key before, in the same row */
        keys: PackedNumbers,
        plain: PackedNumbers,
        steered: PackedNumbers
    }
};
