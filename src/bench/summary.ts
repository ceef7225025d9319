/** How long a piece of work took, in seconds, each time that it was measured. Values at the same index were measured in turns. */
export type Samples = {on: number[], off: number[]};

/** Speeds are in tokens per second. */
export type Comparison = {
    on: number,
    off: number,

    /** on ÷ off */
    ratio: number,

    /** A quarter of the single ratios is below the first, a quarter above the second. */
    ratioQuartiles: [number, number]
};

/**
 * @param tokens - that all pieces together have
 * @param pieces - of the work. The time of the whole is the sum of their medians, so that the moments in which the machine was
 * busy elsewhere don't count.
 */
export function compare(tokens: number, pieces: readonly Samples[]): Comparison {
    const on = tokens / sum(pieces.map((piece) => median(piece.on)));
    const off = tokens / sum(pieces.map((piece) => median(piece.off)));
    const ratios = (pieces[0]?.on ?? []).map((_, index) => (
        sum(pieces.map((piece) => piece.off[index]!)) / sum(pieces.map((piece) => piece.on[index]!))
    ));
    return {on, off, ratio: on / off, ratioQuartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)]};
}

export function median(values: readonly number[]): number {
    return quantile(values, 0.5);
}

/** Between two values, it is in proportion. */
function quantile(values: readonly number[], share: number): number {
    const sorted = [...values].sort((a, b) => a - b);
    const position = (sorted.length - 1) * share;
    const lower = sorted[Math.floor(position)]!;
    const upper = sorted[Math.ceil(position)]!;
    return lower + (upper - lower) * (position % 1);
}

function sum(values: readonly number[]): number {
    return values.reduce((total, value) => total + value, 0);
}
