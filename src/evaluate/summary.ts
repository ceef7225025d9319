import {bootstrapMean, holm, mcnemarExact, quantile, smallestEffect, wilsonInterval} from "./statistics.js";
import type {ChoiceResult, GenerationResult, Result, TextResult} from "./results.js";
import type {Way} from "./tasks.js";

/** A share of items, with Wilson's 95 % interval. */
export type Share = {
    right: number,
    count: number,
    accuracy: number,
    interval: [low: number, high: number]
};

/** An arm against the plain model, over the same items. */
export type Difference = {
    /** accuracy minus plain accuracy */
    value: number,

    /** 95 %, by paired bootstrap */
    interval: [low: number, high: number],

    /** items that only the arm, and that only the plain model got right */
    onlyArm: number,
    onlyPlain: number,

    /** of McNemar's exact test */
    p: number,

    /** of all arms, by Holm's method */
    corrected: number,
    smallestEffect: number
};

export type ArmAccuracy = Share & {
    arm: string,

    /** `undefined` for the plain model */
    difference?: Difference
};

/** The pattern against an arm of the same strength without it: only such a difference is the pattern's. */
export type ControlComparison = {
    arm: string,
    control: string,

    /** here "plain" is the control, and p is corrected for the number of these comparisons */
    difference: Difference
};

/** Items that belong together, such as a subject, under each arm. */
export type PartAccuracy = {
    name: string,
    group?: string,
    arms: ArmAccuracy[]
};

export type MetricSummary = {
    /** `acc` and `acc_norm` are lm-evaluation-harness's */
    metric: "acc" | "acc_norm" | "accuracy",
    /** the accuracy of a choice at random; `undefined` where there is nothing to choose from */
    guessing?: number,
    arms: ArmAccuracy[],
    controls: ControlComparison[],
    groups: PartAccuracy[],
    subjects: PartAccuracy[],

    /** what the bootstrap draws, and how many there are */
    bootstrap: {units: "clusters" | "items", clusters: number}
};

export type GenerationSummary = {
    arm: string,

    /** answers in which no choice could be read; they count as wrong */
    unreadable: number,
    unreadableShare: number,

    /** answers that were cut off at the limit of tokens */
    cutOff: number,

    /** generated in all, and per item */
    tokens: number,
    tokensPerItem: number
};

export type PerplexitySummary = {
    arm: string,
    tokens: number,
    perplexity: number,

    /** 95 %, by bootstrap over texts, or over windows of a single one */
    interval: [low: number, high: number],

    /** what the bootstrap draws, and how many there are */
    bootstrap: {units: "texts" | "windows", count: number},

    /** of the perplexities; `undefined` for the plain model, and the next two too */
    logRatio?: {
        value: number,

        /** 95 %, by paired bootstrap */
        interval: [low: number, high: number],

        /** by the same bootstrap; and of all arms, by Holm's method */
        p: number,
        corrected: number
    },

    /** of single tokens */
    divergence?: {
        mean: number,
        interval: [low: number, high: number],
        median: number,
        percentile90: number,
        percentile99: number,
        largest: number
    },

    /** share of tokens whose likeliest one is the plain model's */
    sameTop?: number
};

type Results<T extends Result> = ReadonlyMap<string, readonly T[]>;

export function summarizeChoices(results: Results<ChoiceResult>, way: Exclude<Way, "generation">, seed: number): MetricSummary[] {
    const acc = summarizeMetric(way === "text" ? "acc" : "accuracy", results, ({chosen, answer}) => chosen === answer, seed);
    return way === "text"
        ? [acc, summarizeMetric("acc_norm", results, ({chosenNormalized, answer}) => chosenNormalized === answer, seed)]
        : [acc];
}

export function summarizeGenerations(
    results: Results<GenerationResult>, seed: number
): {metrics: MetricSummary[], generation: GenerationSummary[]} {
    const generation = Array.from(results, ([arm, list]): GenerationSummary => {
        const tokens = list.reduce((sum, result) => sum + result.tokens, 0);
        const unreadable = list.filter(({chosen}) => chosen == null).length;
        return {
            arm, unreadable, unreadableShare: unreadable / list.length, tokens, tokensPerItem: tokens / list.length,
            cutOff: list.filter(({stopReason}) => stopReason === "length").length
        };
    });
    return {metrics: [summarizeMetric("accuracy", results, ({right}) => right, seed)], generation};
}

function summarizeMetric<T extends ChoiceResult | GenerationResult>(
    metric: MetricSummary["metric"], results: Results<T>, isRight: (result: T) => boolean, seed: number
): MetricSummary {
    const marks = Array.from(results, ([arm, list]) => ({
        arm, marks: list.map((result): Mark => ({subject: result.subject, group: result.group, right: isRight(result)}))
    }));
    const all = marks[0]?.marks ?? [];
    const parts = (key: "group" | "subject") => {
        const names = [...new Set(all.flatMap((mark) => mark[key] ?? []))].sort();
        return names.map((name): PartAccuracy => {
            const chosen = marks.map((one) => ({...one, marks: one.marks.filter((mark) => mark[key] === name)}));
            return {name, group: key === "subject" ? chosen[0]?.marks[0]?.group : undefined, arms: compareArms(chosen, seed)};
        });
    };

    const clusters = new Set(all.map(({subject}) => subject)).size;
    const chances = [...results.values()][0]?.flatMap(({choices}) => choices == null ? [] : [1 / choices]) ?? [];
    return {
        metric,
        guessing: chances.length === 0
            ? undefined
            : chances.reduce((sum, chance) => sum + chance, 0) / chances.length,
        arms: compareArms(marks, seed),
        controls: compareWithControls(marks, seed),
        groups: parts("group"),
        subjects: parts("subject"),
        bootstrap: {units: clusters > 1 ? "clusters" : "items", clusters}
    };
}

type Mark = {subject: string, group?: string, right: boolean};

type MarkedArm = {arm: string, marks: readonly Mark[]};

function compareWithControls(arms: readonly MarkedArm[], seed: number): ControlComparison[] {
    const pairs = arms
        .filter(({arm}) => /^early-layer(?:@|$)/.test(arm))
        .flatMap((pattern) => ["all", "random"].flatMap((name) => {
            const control = arms.find(({arm}) => arm === pattern.arm.replace("early-layer", name));
            return control == null ? [] : [{pattern, control}];
        }));
    const comparisons = pairs.map(({pattern, control}) => ({
        arm: pattern.arm, control: control.arm, difference: compareArms([control, pattern], seed, pairs.length)[1]!.difference!
    }));
    const corrected = holm(comparisons.map(({difference}) => difference.p));
    return comparisons.map((one, index) => ({...one, difference: {...one.difference, corrected: corrected[index]!}}));
}

/** @param tests - what the smallest effect is corrected for */
function compareArms(arms: readonly MarkedArm[], seed: number, tests = arms.length - 1): ArmAccuracy[] {
    const [plain, ...others] = arms;
    if (plain == null)
        return [];

    const compared = others.map(({arm, marks}) => {
        const pairs = marks.map(({right, subject}, index) => ({right, subject, plain: plain.marks[index]!.right}));
        const onlyArm = pairs.filter((pair) => pair.right && !pair.plain).length;
        const onlyPlain = pairs.filter((pair) => !pair.right && pair.plain).length;
        const {mean, interval, standardError} = bootstrapMean(
            pairs.map((pair) => ({cluster: pair.subject, sum: Number(pair.right) - Number(pair.plain), count: 1})), {seed}
        );
        return {
            arm, ...shareOf(marks), difference: {
                value: mean, interval, onlyArm, onlyPlain, p: mcnemarExact(onlyPlain, onlyArm),
                // few clusters may happen to be alike: never less than items that have nothing to do with each other would vary
                smallestEffect: smallestEffect(Math.max(standardError, Math.sqrt(onlyArm + onlyPlain) / pairs.length), pairs.length, tests)
            }
        };
    });
    const corrected = holm(compared.map(({difference}) => difference.p));
    return [
        {arm: plain.arm, ...shareOf(plain.marks)},
        ...compared.map((one, index) => ({...one, difference: {...one.difference, corrected: corrected[index]!}}))
    ];
}

function shareOf(marks: readonly Mark[]): Share {
    const right = marks.filter((mark) => mark.right).length;
    return {right, count: marks.length, accuracy: right / marks.length, interval: wilsonInterval(right, marks.length)};
}

export function summarizeTexts(results: Results<TextResult>, seed: number): PerplexitySummary[] {
    const [plain = []] = results.values();
    const texts = new Set(plain.map(({subject}) => subject)).size;
    const drawn: PerplexitySummary["bootstrap"] = texts > 1
        ? {units: "texts", count: texts}
        : {units: "windows", count: plain.length};

    const summaries = Array.from(results, ([arm, list]): PerplexitySummary => {
        const bootstrap = (sumOf: (result: TextResult, index: number) => number) => bootstrapMean(
            list.map((result, index) => ({cluster: result.subject, sum: sumOf(result, index), count: result.tokens})), {seed}
        );
        const loss = bootstrap((result) => result.loss);
        const summary = {
            arm,
            tokens: list.reduce((sum, {tokens}) => sum + tokens, 0),
            perplexity: Math.exp(loss.mean),
            interval: loss.interval.map(Math.exp) as [number, number],
            bootstrap: drawn
        };
        if (list === plain)
            return summary;

        const ratio = bootstrap((result, index) => result.loss - plain[index]!.loss);
        const divergence = bootstrap((result) => result.divergence);
        const ascending = Float64Array.from(list.flatMap(({divergences}) => divergences)).sort();
        return {
            ...summary,
            logRatio: {value: ratio.mean, interval: ratio.interval, p: ratio.p, corrected: ratio.p},
            divergence: {
                mean: divergence.mean, interval: divergence.interval, median: quantile(ascending, 0.5),
                percentile90: quantile(ascending, 0.9), percentile99: quantile(ascending, 0.99), largest: quantile(ascending, 1)
            },
            sameTop: list.reduce((sum, {sameTop}) => sum + sameTop, 0) / summary.tokens
        };
    });
    const compared = summaries.flatMap(({logRatio}) => logRatio ?? []);
    for (const [index, corrected] of holm(compared.map(({p}) => p)).entries())
        compared[index]!.corrected = corrected;
    return summaries;
}
