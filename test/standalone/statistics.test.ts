import fs from "node:fs/promises";
import test from "ava";
import {bootstrapMean, holm, mcnemarExact, quantile, smallestEffect, wilsonInterval} from "#dist/evaluate/statistics.js";

/*
 * What SciPy and statsmodels say of the same data: test/statistics/record.py.
 */
type Interval = [low: number, high: number];
const reference = JSON.parse(await fs.readFile(new URL("../../test/statistics/reference.json", import.meta.url), "utf8")) as {
    wilson: Array<{right: number, count: number, interval: Interval}>,
    mcnemar: Array<{onlyFirst: number, onlySecond: number, p: number}>,
    holm: Array<{p: number[], corrected: number[]}>,
    bootstrap: Array<{
        rows: Array<[cluster: string, difference: number]>, mean: number, interval: Interval, standardError: number, p: number
    }>
};

function isNear(actual: number, expected: number, tolerance: number): boolean {
    return Math.abs(actual - expected) <= tolerance;
}

test("Wilson's intervals are statsmodels'", (t) => {
    for (const {right, count, interval} of reference.wilson) {
        for (const [index, bound] of wilsonInterval(right, count).entries())
            t.true(isNear(bound, interval[index]!, 1e-6), `${right} of ${count}: ${bound}, not ${interval[index]}`);
    }
});

test("McNemar's exact p is statsmodels'", (t) => {
    for (const {onlyFirst, onlySecond, p} of reference.mcnemar)
        t.true(isNear(mcnemarExact(onlyFirst, onlySecond), p, 1e-9 + 1e-9 * p), `${onlyFirst}, ${onlySecond}: not ${p}`);
});

test("Holm's correction is statsmodels'", (t) => {
    for (const {p, corrected} of reference.holm)
        t.true(holm(p).every((value, index) => isNear(value, corrected[index]!, 1e-12)), `${holm(p).join()}, not ${corrected.join()}`);
    t.deepEqual(holm([]), []);
});

test("the paired bootstrap is SciPy's, clustered or not", (t) => {
    for (const {rows, mean, interval, standardError, p} of reference.bootstrap) {
        const result = bootstrapMean(rows.map(([cluster, sum]) => ({cluster, sum, count: 1})), {resamples: 40_000, seed: 3});
        t.true(isNear(result.mean, mean, 1e-12));
        // with so many resamples, percentiles of either vary by about this
        t.true(isNear(result.standardError, standardError, 0.02 * standardError), `${result.standardError}, not ${standardError}`);
        for (const [index, bound] of result.interval.entries())
            t.true(isNear(bound, interval[index]!, 0.08 * standardError), `${bound}, not ${interval[index]}`);
        // four standard deviations of a share of 40,000
        t.true(isNear(result.p, p, 8 * Math.sqrt(p / 2 / 40_000) + 1e-4), `p is ${result.p}, not ${p}`);
    }
});

test("of few clusters the bootstrap gives the percentiles of all samples that there are", (t) => {
    const clusters = [[3, 10], [-1, 20], [4, 30]] as const;
    const all: number[] = [];
    for (const a of clusters)
        for (const b of clusters)
            for (const c of clusters)
                all.push((a[0] + b[0] + c[0]) / (a[1] + b[1] + c[1]));
    all.sort((a, b) => a - b);

    const observations = clusters.map(([sum, count], index) => ({cluster: String(index), sum, count}));
    const {interval} = bootstrapMean(observations, {resamples: 20_000, seed: 1});
    t.deepEqual(interval, [all[0], all.at(-1)]); // each of the extremes has a probability of 1/27
});

test("the bootstrap's p is twice the share of samples on the other side of 0, and says no more than so few things can", (t) => {
    const pOf = (rows: Array<[cluster: string, sum: number, count?: number]>) => (
        bootstrapMean(rows.map(([cluster, sum, count = 1]) => ({cluster, sum, count})), {resamples: 20_000, seed: 2}).p
    );
    // the sum is at most 0 only where none of three draws is the 4: in 8 of 27 samples
    for (const rows of [[["x", 4], ["x", -1], ["x", -1]], [["a", 1], ["a", 3], ["b", -1, 5], ["c", -1]], [["x", -4], ["x", 1], ["x", 1]]])
        t.true(isNear(pOf(rows as Array<[string, number]>), 16 / 27, 0.02), String(pOf(rows as Array<[string, number]>)));

    const agreeing = (count: number) => pOf(Array.from({length: count}, (_, index) => ["x", 1 + index]));
    t.deepEqual([1, 2, 3, 6].map(agreeing), [1, 1 / 2, 1 / 4, 1 / 32]);
    t.is(agreeing(40), 2 / 20_001);
    t.is(pOf([["x", 0], ["x", 0], ["x", 0]]), 1);
    t.is(pOf([]), 1);
});

test("the bootstrap is that of its seed", (t) => {
    const {rows} = reference.bootstrap[1]!;
    const observations = rows.map(([cluster, sum]) => ({cluster, sum, count: 1}));
    t.deepEqual(bootstrapMean(observations, {seed: 5}), bootstrapMean(observations, {seed: 5}));
    t.notDeepEqual(bootstrapMean(observations, {seed: 5}), bootstrapMean(observations, {seed: 6}));
});

test("quantiles are interpolated as NumPy does", (t) => {
    t.is(quantile([1, 2, 3, 4], 0.5), 2.5);
    t.is(quantile([1, 2, 3, 4, 10], 0.9).toFixed(6), (7.6).toFixed(6));
    t.is(quantile([7], 0.3), 7);
    t.is(quantile([], 0.3), NaN);
});

test("a sample shows an effect of the smallest size four times in five", (t) => {
    // 400 pairs, of which an arm wins with probability `up` and loses with probability `down`
    const [count, up, down] = [400, 0.12, 0.04] as const;
    const standardError = Math.sqrt((up + down - (up - down) ** 2) / count);
    const effect = smallestEffect(standardError, count, 1);
    t.true(isNear(effect, 2.80 * standardError, 0.001));

    // an effect of just that size, in as many pairs that differ: how often its interval excludes 0
    const differing = up + down;
    let shown = 0;
    for (let sample = 0; sample < 2000; sample++) {
        let sum = 0;
        let squares = 0;
        for (let pair = 0; pair < count; pair++) {
            const draw = pseudoRandom(sample * count + pair);
            const difference = draw < (differing + effect) / 2
                ? 1
                : draw < differing
                    ? -1
                    : 0;
            sum += difference;
            squares += difference ** 2;
        }
        const mean = sum / count;
        shown += Number(Math.abs(mean) > 1.96 * Math.sqrt((squares / count - mean ** 2) / count));
    }
    t.true(isNear(shown / 2000, 0.8, 0.04), String(shown / 2000));
    // where no pairs differ: the share p of which the binomial distribution has at least k in 80 %, k the least that is significant
    t.true(isNear(smallestEffect(0, 240, 1), 0.0327422, 1e-6));  // k = 6
    t.true(isNear(smallestEffect(0, 1200, 1), 0.0065804, 1e-6));
    t.true(isNear(smallestEffect(0, 1200, 5), 0.0085156, 1e-6)); // k = 8
    t.is(smallestEffect(0, 3, 1), 1);
    // with several tests it takes more
    t.true(isNear(smallestEffect(0.01, 10_000, 5), (2.5758 + 0.8416) * 0.01, 1e-5));
});

/** The fractional part of a hash: good enough for shares. */
function pseudoRandom(index: number): number {
    let bits = Math.imul(index + 1, 0x9e3779b1) >>> 0;
    bits = Math.imul(bits ^ (bits >>> 15), 0x85ebca6b) >>> 0;
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35) >>> 0;
    return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
}
