/** The 95 % quantile of the normal distribution, two-sided. */
const z = 1.959964;

/** Wilson's 95 % interval for a share: unlike the textbook's, it is right for small counts and for shares near 0 and 1. */
export function wilsonInterval(successes: number, count: number): [low: number, high: number] {
    if (count === 0)
        return [0, 1];

    const share = successes / count;
    const center = share + z ** 2 / (2 * count);
    const reach = z * Math.sqrt(share * (1 - share) / count + z ** 2 / (4 * count ** 2));
    const scale = 1 + z ** 2 / count;
    return [Math.max(0, (center - reach) / scale), Math.min(1, (center + reach) / scale)];
}

/**
 * McNemar's exact test, two-sided, for two ways of answering the same questions: how likely a split at least this uneven of
 * the questions that only one of them got right would be if both were equally good.
 */
export function mcnemarExact(onlyFirst: number, onlySecond: number): number {
    const count = onlyFirst + onlySecond;
    const fewer = Math.min(onlyFirst, onlySecond);

    // the lower tail of the binomial distribution with probability ½, by its logarithms: 2^-count is 0 for large counts
    let logTerm = -count * Math.LN2;
    let tail = 0;
    for (let k = 0; k <= fewer; k++) {
        tail += Math.exp(logTerm);
        logTerm += Math.log((count - k) / (k + 1));
    }
    return Math.min(1, 2 * tail);
}
