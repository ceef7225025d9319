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
 * The speed of a machine drifts, by more than what is looked for here, so pairs are compared that were measured one right
 * after the other: the ratio is the median of their ratios. Speeds are those of a typical pair, apart by that ratio.
 * @param tokens - that all pieces together have
 * @param pieces - of the work, the times of which add up
 */
export function compare(tokens: number, pieces: readonly Samples[]): Comparison {
    const typical = pieces.map(typicalPair);
    const on = tokens / sum(typical.map((pair) => pair.on));
    const off = tokens / sum(typical.map((pair) => pair.off));
    const ratios = (pieces[0]?.on ?? []).map((_, index) => (
        sum(pieces.map((piece) => piece.off[index]!)) / sum(pieces.map((piece) => piece.on[index]!))
    ));
    return {on, off, ratio: on / off, ratioQuartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)]};
}

function typicalPair({on, off}: Samples): {on: number, off: number} {
    const ratio = median(on.map((time, index) => time / off[index]!));
    const middle = median(on.map((time, index) => Math.sqrt(time * off[index]!)));
    return {on: middle * Math.sqrt(ratio), off: middle / Math.sqrt(ratio)};
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
