import {underArm} from "../evaluate/arms.js";
import {createEvaluationContext} from "../evaluate/context.js";
import {likeliest, likeliestNormalized} from "../evaluate/evaluate.js";
import {DataError} from "../evaluate/item.js";
import {checkScores, longestSequence, scoreChoices, slotsFor} from "../evaluate/logLikelihood.js";
import {mixEvenly} from "../evaluate/questions.js";
import {bootstrapMean, mcnemarExact, wilsonInterval} from "../evaluate/statistics.js";
import {keyOf} from "./candidates.js";
import {fitSharpness, logLikelihoodsOf, negligible} from "./score.js";
import {search} from "./search.js";
import type {LlamaModel} from "node-llama-cpp";
import type {ChoiceItem} from "../evaluate/item.js";
import type {PreparedItem} from "../evaluate/prepareItem.js";
import type {AttentionShape} from "../emulation/shape.js";
import type {ScoreFile} from "./ScoreFile.js";
import type {ItemScore} from "./score.js";
import type {SearchOptions, SearchResult} from "./search.js";
import type {Setting} from "./candidates.js";

export type TuneOptions = Pick<SearchOptions, "patterns" | "sourceLayer" | "seed" | "onProgress"> & {
    model: LlamaModel,

    /** that are trained on, in an order by chance; and those that decide */
    splits: Splits,
    shape: AttentionShape,
    way: "letter" | "text",

    /** how many items may be scored in the search, or seconds that it may take */
    budget: {items: number} | {seconds: number},
    sequences: number,
    threads?: number,
    flashAttention?: boolean,
    file: ScoreFile,
    signal?: AbortSignal
};

export type Splits = {training: PreparedItem[], confirmation: PreparedItem[]};

/** One setting against the plain model, on the same items. */
export type Comparison = {
    items: number,
    accuracy: {plain: number, tuned: number},
    intervals: {plain: [number, number], tuned: [number, number]},

    /** McNemar's exact test of the accuracies */
    mcnemar: {onlyPlain: number, onlyTuned: number, p: number},

    /**
     * difference of the right option's log-likelihood among all options, each at its sharpness of the training items, with its
     * 95 % interval and p by paired bootstrap; `drawn`: what that draws
     */
    logLikelihood: {difference: number, interval: [number, number], p: number, drawn: {units: "subjects" | "items", count: number}}
};

export type TuneResult = {
    search: SearchResult,
    budget: number,
    training: Comparison | undefined,

    /** `undefined`: there was nothing to confirm */
    confirmation: Comparison | undefined,

    /** what the confirmation says: the setting is better than the plain model on items that it was not chosen by */
    confirmed: boolean
};

/**
 * Divides items at random into those that are trained on and those that decide, each subject as evenly as can be. A question that is
 * there more than once is trained on each time, if at all.
 * @param share - of the items, for the confirmation
 */
export function split<T extends {item: Pick<ChoiceItem, "subject" | "question" | "options">}>(
    items: readonly T[], share: number, seed: number
): {training: T[], confirmation: T[]} {
    const mixed = mixEvenly(items, ({item}) => item.subject, seed);
    const count = Math.round(share * items.length);
    const asked = ({item}: T) => JSON.stringify([item.question, item.options]);
    const training = mixed.slice(count);
    const trained = new Set(training.map(asked));
    const others = mixed.slice(0, count);
    return {
        training: [...training, ...others.filter((one) => trained.has(asked(one)))],
        confirmation: others.filter((one) => !trained.has(asked(one)))
    };
}

/** Finds the best setting on the training items, and tries it on those for confirmation, once. */
export async function tune(options: TuneOptions): Promise<TuneResult> {
    const {model, splits, seed, budget, signal, file, shape, patterns, sourceLayer, onProgress} = options;
    const all = [...splits.training, ...splits.confirmation];
    await using context = await createEvaluationContext(model, {
        length: Math.max(...all.map(longestSequence)), sequences: Math.max(options.sequences, ...all.map(slotsFor)),
        threads: options.threads, flashAttention: options.flashAttention
    });

    const score = (name: keyof Splits) => async (setting: Setting | undefined, from: number, to: number) => (
        await file.get(`${name} ${from} ${to} ${setting == null ? "plain" : keyOf(setting)}`, async () => {
            signal?.throwIfAborted();
            const items = splits[name].slice(from, to);
            const scores = await underArm(context, {name: "tuned", emulation: setting}, () => scoreChoices(context, items, {signal}));
            checkScores(items, scores);
            return scores.map(({logLikelihoods}, index) => scoreOf(items[index]!, logLikelihoods, options.way));
        })
    );

    const items = splits.training.length;
    const itemBudget = "items" in budget
        ? budget.items
        : await file.get("budget", () => itemsIn(budget.seconds)); // the same when a run goes on
    const found = await search({
        shape, patterns, sourceLayer, seed, items, budget: itemBudget, score: score("training"), onProgress
    });
    if (found.best == null)
        return {search: found, budget: itemBudget, training: undefined, confirmation: undefined, confirmed: false};

    onProgress?.({stage: "confirmation", done: itemBudget, all: itemBudget});
    const scoresOf = async (name: keyof Splits) => ({
        plain: await score(name)(undefined, 0, splits[name].length),
        tuned: await score(name)(found.best!.setting, 0, splits[name].length),
        subjects: splits[name].map(({item}) => item.subject)
    });
    const trained = await scoresOf("training");
    const sharpness = {plain: fitSharpness(trained.plain), tuned: fitSharpness(trained.tuned)};
    const training = compareScores(trained, sharpness, seed);
    const confirmation = compareScores(await scoresOf("confirmation"), sharpness, seed);
    return {search: found, budget: itemBudget, training, confirmation, confirmed: isConfirmed(confirmation)};

    /** By the time that the plain model takes for some of the items; what remains of the time is for the confirmation. */
    async function itemsIn(seconds: number): Promise<number> {
        const some = splits.training.slice(0, 3 * options.sequences);
        await scoreChoices(context, some, {signal}); // so that the first one isn't slower
        const start = performance.now();
        await scoreChoices(context, some, {signal});
        const perItem = (performance.now() - start) / 1000 / some.length;
        return Math.max(0, Math.floor(seconds / perItem) - items - 2 * splits.confirmation.length);
    }
}

/** With fewer subjects a bootstrap of them can't tell anything from chance. */
const leastSubjects = 6;

/** Better beyond chance in what the setting was chosen by, and no worse in what counts in the end. */
export function isConfirmed({logLikelihood, accuracy}: Comparison): boolean {
    return logLikelihood.interval[0] > negligible && logLikelihood.p < 0.05 && accuracy.tuned >= accuracy.plain;
}

export function compareScores(
    {plain, tuned, subjects}: {plain: readonly ItemScore[], tuned: readonly ItemScore[], subjects: readonly string[]},
    sharpness: {plain: number, tuned: number}, seed: number
): Comparison {
    const items = plain.length;
    const countRight = (scores: readonly ItemScore[]) => scores.filter(({right}) => right).length;
    const onlyPlain = plain.filter(({right}, index) => right && !tuned[index]!.right).length;
    const onlyTuned = tuned.filter(({right}, index) => right && !plain[index]!.right).length;
    const plainLogLikelihoods = logLikelihoodsOf(plain, sharpness.plain);
    const count = new Set(subjects).size;
    const drawn = count < leastSubjects
        ? {units: "items", count: items} as const
        : {units: "subjects", count} as const;
    const {mean, interval, p} = bootstrapMean(logLikelihoodsOf(tuned, sharpness.tuned).map((logLikelihood, index) => ({
        cluster: drawn.units === "items" ? String(index) : subjects[index]!, sum: logLikelihood - plainLogLikelihoods[index]!, count: 1
    })), {seed});
    return {
        items,
        accuracy: {plain: countRight(plain) / items, tuned: countRight(tuned) / items},
        intervals: {plain: wilsonInterval(countRight(plain), items), tuned: wilsonInterval(countRight(tuned), items)},
        mcnemar: {onlyPlain, onlyTuned, p: mcnemarExact(onlyPlain, onlyTuned)},
        logLikelihood: {difference: mean, interval, p, drawn}
    };
}

function scoreOf({item, optionTexts}: PreparedItem, logLikelihoods: readonly number[], way: "letter" | "text"): ItemScore {
    // texts of different lengths are compared per character, as acc_norm does, and count as if all were of the mean length: in the
    // same measure as letters
    const lengths = optionTexts.map((text) => Math.max(1, Array.from(text).length));
    const meanLength = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
    const options = way === "letter"
        ? [...logLikelihoods]
        : logLikelihoods.map((value, option) => value / lengths[option]! * meanLength);
    const chosen = way === "letter"
        ? likeliest(logLikelihoods)
        : likeliestNormalized(logLikelihoods, optionTexts);
    return {options, answer: item.answer, right: chosen === item.answer};
}

/** @throws {DataError} where there are too few for both splits to say anything */
export function checkSplits({training, confirmation}: {training: readonly unknown[], confirmation: readonly unknown[]}): void {
    const least = 8;
    if (training.length < least || confirmation.length < least)
        throw new DataError(
            `there are ${training.length} items to train on and ${confirmation.length} to confirm with, but at least ${least} of each are needed`
        );
}
