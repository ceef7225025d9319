import {tokenClasses} from "reattend";
import type {CapturedAttention} from "reattend";

/** Rows of weights of a head: for each query position, one of each key; keys that it does not see are 0. */
export type HeadWeights = ReadonlyArray<ArrayLike<number>>;

/** The whole rows of a captured layer and head, by query position. */
export function capturedWeights(captured: CapturedAttention, layer: number, head: number): Float32Array[] {
    const {heads, rowIndices} = captured;
    const pattern = captured.get(`layers.${layer}.attention.pattern`) as Float32Array;
    const width = pattern.length / heads.length / rowIndices.length;
    const start = heads.indexOf(head) * rowIndices.length;
    return Array.from(rowIndices, (_, row) => pattern.subarray((start + row) * width, (start + row + 1) * width));
}

/** A head's measures, from whole rows, as src/inspect/inspection.ts defines them. All keys up to a query are seen. */
export function measuresOf(
    rows: HeadWeights, source: HeadWeights, threshold: number, classes: readonly number[], window = Infinity
) {
    const n = rows.length;
    const sees = (i: number, j: number) => j <= i && i - j < window;
    const others = rows.flatMap((row, i) => (
        Array.from({length: n}, (_, j) => ({i, j, weight: row[j] ?? 0})).filter(({j}) => sees(i, j) && j !== i)
    ));
    const meanOver = (value: (row: ArrayLike<number>, i: number) => number) => (
        rows.reduce((sum, row, i) => sum + value(row, i), 0) / n
    );
    const massOf = (isMeant: (key: number, query: number) => boolean) => meanOver((row, i) => (
        Array.from(row).reduce((sum, weight, j) => sum + (isMeant(j, i) ? weight : 0), 0)
    ));
    const toToken = (j: number) => others.filter((other) => other.j === j);

    return {
        entropy: meanOver((row) => {
            const weights = Array.from(row).filter((weight) => weight > 0);
            const sum = weights.reduce((a, b) => a + b, 0);
            return -weights.reduce((total, weight) => total + weight / sum * Math.log(weight / sum), 0);
        }),
        firstTokenMass: massOf((j) => j === 0),
        classMass: tokenClasses.map((_, c) => massOf((j) => classes[j] === c)),
        agreement: massOf((j, i) => j !== i && source[i]![j]! > threshold),
        keysPerRow: others.filter(({weight}) => weight > threshold).length / n,
        received: rows.map((_, j) => {
            const weights = toToken(j).map(({weight}) => weight);
            return weights.reduce((a, b) => a + b, 0) / Math.max(weights.length, 1);
        }),
        receivedBy: rows.map((_, j) => toToken(j).filter(({weight}) => weight > threshold).length)
    };
}

/** The measures of a captured layer and head, in the same form. */
export function capturedMeasures(captured: CapturedAttention, layer: number, head: number): ReturnType<typeof measuresOf> {
    const index = captured.heads.indexOf(head);
    const part = (name: string) => {
        const values = captured.get(`layers.${layer}.attention.${name}`);
        const size = values.length / captured.heads.length;
        return Array.from(values.subarray(index * size, (index + 1) * size));
    };
    const [entropy, firstTokenMass, agreement, keysPerRow] = ["entropy", "firstTokenMass", "agreement", "keysPerRow"]
        .map((name) => part(name)[0]!) as [number, number, number, number];
    return {
        entropy, firstTokenMass, agreement, keysPerRow,
        classMass: part("classMass"), received: part("received"), receivedBy: part("receivedBy")
    };
}

/** The largest difference of any two numbers at the same place. */
export function largestDifference(a: unknown, b: unknown): number {
    if (typeof a === "number" && typeof b === "number")
        return Object.is(a, b) ? 0 : Math.abs(a - b);

    const [left, right] = [Object.entries(a as object), b as Record<string, unknown>];
    if (left.length === 0 || left.length !== Object.keys(right).length)
        return NaN;
    return left.reduce((most, [key, value]) => {
        const difference = largestDifference(value, right[key]);
        return difference > most || Number.isNaN(difference)
            ? difference
            : most;
    }, 0);
}
