/** How long the same work took in one round, with emulation and without. */
export type RoundSeconds = {on: number, off: number};

/** Speeds are in tokens per second. */
export type Comparison = {
    on: number,
    off: number,

    /** on ÷ off */
    ratio: number,

    /** The least and the largest ratio of a single round. */
    ratioRange: [number, number]
};

/** Medians over the rounds, so that a round in which the machine was busy elsewhere doesn't count for more than the others. */
export function compare(tokens: number, rounds: readonly RoundSeconds[]): Comparison {
    const on = tokens / median(rounds.map((round) => round.on));
    const off = tokens / median(rounds.map((round) => round.off));
    const ratios = rounds.map((round) => round.off / round.on);
    return {on, off, ratio: on / off, ratioRange: [Math.min(...ratios), Math.max(...ratios)]};
}

export function median(values: readonly number[]): number {
    const sorted = [...values].sort((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 === 1
        ? sorted[middle]!
        : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
