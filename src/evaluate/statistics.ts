import {seededRandom} from "../random.js";

/** The 95 % quantile of the normal distribution, two-sided. */
const z = 1.959964;

/** The power that a smallest effect is meant with, and that as a quantile of the normal distribution. */
const power = 0.8;
const zOfPower = 0.841621;

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

/** Holm's correction of p-values for their number: how the family of tests as a whole is kept at its level. The order stays. */
export function holm(pValues: readonly number[]): number[] {
    const ascending = Array.from(pValues.keys()).sort((a, b) => pValues[a]! - pValues[b]!);
    const corrected = new Array<number>(pValues.length);
    let most = 0;
    for (const [rank, index] of ascending.entries()) {
        most = Math.max(most, Math.min(1, (pValues.length - rank) * pValues[index]!));
        corrected[index] = most;
    }
    return corrected;
}

/** What one item says: a sum over a number of things, such as tokens, or over the one item. */
export type Observation = {
    cluster: string,
    sum: number,
    count: number
};

export type Bootstrap = {
    /** the sums by the counts */
    mean: number,

    /** 95 %, from the percentiles of the resampled means */
    interval: [low: number, high: number],
    standardError: number,

    /**
     * Two-sided, of the mean being 0: twice the share of resampled means on its other side, so that it is about below 0.05 where the
     * interval leaves 0 out. Of `n` things to draw it is never below a sign test's least, `2 / 2 ** n`.
     */
    p: number
};

/**
 * How much a mean would vary if the sample were drawn again, by drawing from the sample: whole clusters, since items of one
 * are alike, or items where there is one cluster only. Of paired differences it is the paired bootstrap.
 *
 * The same seed draws the same samples. With few clusters, say below 20, the interval is rather too narrow.
 */
export function bootstrapMean(
    observations: readonly Observation[], {resamples = 10_000, seed = 1}: {resamples?: number, seed?: number} = {}
): Bootstrap {
    const clusters = sumUp(observations);
    const units = clusters.length > 1
        ? clusters
        : observations;
    const mean = (drawn: ReadonlyArray<{sum: number, count: number}>) => (
        drawn.reduce((total, {sum}) => total + sum, 0) / drawn.reduce((total, {count}) => total + count, 0)
    );

    const random = seededRandom(seed);
    const means = new Float64Array(units.length === 0 ? 0 : resamples);
    for (let resample = 0; resample < means.length; resample++) {
        let sum = 0;
        let count = 0;
        for (let draw = 0; draw < units.length; draw++) {
            const unit = units[Math.floor(random() * units.length)]!;
            sum += unit.sum;
            count += unit.count;
        }
        means[resample] = sum / count;
    }
    means.sort();
    const fewer = Math.min(means.filter((value) => value <= 0).length, means.filter((value) => value >= 0).length);

    return {
        mean: mean(units),
        interval: [quantile(means, 0.025), quantile(means, 0.975)],
        standardError: standardDeviation(means),
        // of few things that agree all resamples agree, too, however little that says
        p: Math.min(1, Math.max(2 * (fewer + 1) / (means.length + 1), 2 / 2 ** units.length))
    };
}

/**
 * The smallest true difference in accuracy that a sample like this would have shown, with a probability of 80 %, as one that
 * chance alone gives in 5 % of samples, after a correction for the number of tests. No smaller than what makes enough of the items
 * differ, all in the same way: of fewer than 6 that only one of two got right, McNemar's test is never below 0.05.
 */
export function smallestEffect(standardError: number, count: number, tests: number): number {
    const significant = Math.floor(Math.log2(2 * tests / 0.05)) + 1;
    return Math.min(1, Math.max((quantileOfTail(0.025 / tests) + zOfPower) * standardError, shareForAtLeast(significant, count)));
}

/** What a normal deviate is above with this probability, below 0.5; to 0.0005: Hastings' approximation (Abramowitz and Stegun, 26.2.23). */
function quantileOfTail(probability: number): number {
    const t = Math.sqrt(-2 * Math.log(probability));
    return t - (2.515517 + 0.802853 * t + 0.010328 * t ** 2) / (1 + 1.432788 * t + 0.189269 * t ** 2 + 0.001308 * t ** 3);
}

/** The share of which a sample of `count` has at least so many, with a probability of 80 %. */
function shareForAtLeast(successes: number, count: number): number {
    if (successes >= count)
        return 1;

    let [low, high] = [0, 1];
    for (let step = 0; step < 40; step++) {
        const share = (low + high) / 2;
        let logTerm = count * Math.log1p(-share);
        let fewer = 0;
        for (let k = 0; k < successes; k++) {
            fewer += Math.exp(logTerm);
            logTerm += Math.log((count - k) / (k + 1)) + Math.log(share) - Math.log1p(-share);
        }
        if (1 - fewer < power)
            low = share;
        else
            high = share;
    }
    return high;
}

/** @param values - ascending; between two of them the quantile is interpolated, as R and NumPy do by default */
export function quantile(values: ArrayLike<number>, share: number): number {
    if (values.length === 0)
        return NaN;

    const place = (values.length - 1) * share;
    const below = values[Math.floor(place)]!;
    const above = values[Math.ceil(place)]!;
    return below + (above - below) * (place - Math.floor(place));
}

function sumUp(observations: readonly Observation[]): Array<{sum: number, count: number}> {
    const sums = new Map<string, {sum: number, count: number}>();
    for (const {cluster, sum, count} of observations) {
        const total = sums.get(cluster) ?? {sum: 0, count: 0};
        sums.set(cluster, {sum: total.sum + sum, count: total.count + count});
    }
    return [...sums.values()];
}

function standardDeviation(values: Float64Array): number {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return Math.sqrt(squares / (values.length - 1));
}
