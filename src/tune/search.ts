import {firstCandidates, keyOf, otherLayers, otherStrengths, withoutHeads} from "./candidates.js";
import {fitSharpness, logLikelihoodsOf} from "./score.js";
import type {SearchSpace, Setting} from "./candidates.js";
import type {ItemScore} from "./score.js";

/** The budget is too small to try anything: said in one sentence. */
export class BudgetError extends RangeError {
    override name = "BudgetError";
}

/** Scores the training items from one up to before another under a setting; `undefined`: the model as it is. */
export type Scorer = (setting: Setting | undefined, from: number, to: number) => Promise<readonly ItemScore[]>;

export type SearchOptions = SearchSpace & {
    /** how many training items there are */
    items: number,

    /** how many items may be scored, those of the plain model not counted */
    budget: number,
    seed: number,
    score: Scorer,
    onProgress?: (progress: {stage: string, done: number, all: number}) => void
};

/** A mean of differences to the plain model, item by item. */
export type Gain = {
    /** of the right options' log-likelihoods */
    mean: number,
    standardError: number,
    items: number
};

export type SearchResult = {
    /** `undefined`: none was better than the plain model on the training items */
    best: {setting: Setting, gain: Gain} | undefined,

    /** what was tried, stage by stage, and the best of it */
    stages: Array<{stage: string, tried: number, items: number, best: Gain | null, setting: Setting | null}>,

    /** items that were scored, those of the plain model not counted */
    spent: number
};

/** Of the candidates of a round, one in so many is left for the next one, which has so many times the items. */
const reduction = 3;
const leastItems = 8;
const mostCandidates = 243;

/** Of the budget, for the rounds; the rest is for what follows. */
const shareOfRounds = 0.6;

/**
 * Looks for a setting under which right options are likelier than under the plain model: many are tried on a few items, a third
 * of them on three times as many, and so on (successive halving); then the best one is varied in strength, layers and heads.
 *
 * What it finds is the best of many on these items, so its gain here is too good: only other items tell whether it is real.
 * @throws {BudgetError} if the budget is too small to try anything
 */
export async function search(options: SearchOptions): Promise<SearchResult> {
    const run = new Search(options);
    await run.playRounds();
    await run.refine();
    return run.result();
}

/** The numbers of items of the rounds, ascending to all. */
export function roundSizes(items: number): number[] {
    const sizes = [items];
    while (sizes[0]! / reduction >= leastItems)
        sizes.unshift(Math.ceil(sizes[0]! / reduction));
    return sizes;
}

/** What rounds that begin with so many candidates cost, in items. */
export function costOfRounds(candidates: number, sizes: readonly number[]): number {
    let left = candidates;
    let cost = 0;
    for (const [round, size] of sizes.entries()) {
        cost += left * (size - (sizes[round - 1] ?? 0));
        left = Math.ceil(left / reduction);
    }
    return cost;
}

class Search {
    private readonly scores = new Map<string, ItemScore[]>();
    private readonly fitted = new Map<string, readonly number[]>();
    private readonly stages: SearchResult["stages"] = [];
    private spent = 0;
    private best: Setting | undefined;

    constructor(private readonly options: SearchOptions) {}

    async playRounds(): Promise<void> {
        const {items, budget, seed} = this.options;
        const sizes = roundSizes(items);
        let count = mostCandidates;
        while (count > 0 && costOfRounds(count, sizes) > budget * shareOfRounds)
            count--;
        if (count < this.options.patterns.length)
            throw new BudgetError(
                `the budget of ${budget} is too small: with ${items} training items it takes ` +
                `${Math.ceil(costOfRounds(this.options.patterns.length, sizes) / shareOfRounds)} to try anything`
            );

        let candidates = firstCandidates(this.options, count, seed);
        for (const [round, size] of sizes.entries()) {
            const stage = `round ${round + 1} of ${sizes.length}`;
            await this.score(undefined, size, stage);
            for (const candidate of candidates)
                await this.score(candidate, size, stage);
            candidates.sort((a, b) => this.gainOf(b, size).mean - this.gainOf(a, size).mean);
            this.note(stage, candidates.length, size, candidates[0]!);

            // early stop: nothing that is left can be expected to be better than the plain model
            candidates = candidates.filter((candidate) => !isClearlyWorse(this.gainOf(candidate, size)));
            if (candidates.length === 0)
                return;
            if (round < sizes.length - 1)
                candidates = candidates.slice(0, Math.ceil(candidates.length / reduction));
        }
        const [first] = candidates;
        if (this.gainOf(first!, items).mean > 0)
            this.best = first;
    }

    async refine(): Promise<void> {
        if (this.best == null)
            return;
        await this.tryOthers("strengths", otherStrengths(this.best, this.options));
        await this.tryOthers("layers", otherLayers(this.best, this.options));
        await this.chooseHeads();
        await this.tryOthers("strengths again", otherStrengths(this.best, this.options));
    }

    result(): SearchResult {
        return {
            best: this.best == null
                ? undefined
                : {setting: this.best, gain: this.gainOf(this.best, this.options.items)},
            stages: this.stages,
            spent: this.spent
        };
    }

    /** Goes over to the best of others, if it is better than chance would easily have it. */
    private async tryOthers(stage: string, others: readonly Setting[]): Promise<void> {
        const {items} = this.options;
        const affordable = others.slice(0, Math.floor(this.left / items));
        for (const other of affordable)
            await this.score(other, items, stage);
        const [first] = [...affordable].sort((a, b) => this.gainOf(b, items).mean - this.gainOf(a, items).mean);
        if (first == null)
            return;
        if (isBetter(this.gainOf(first, items, this.best)))
            this.best = first;
        this.note(stage, affordable.length, items, this.best!);
    }

    /** Leaves out the heads without which it is better. */
    private async chooseHeads(): Promise<void> {
        const {items, shape} = this.options;
        const current = this.best!;
        // one for each head, and one for all that are left out together
        const size = Math.min(items, Math.floor((this.left - items) / shape.heads));
        if (shape.heads < 2 || size < leastItems)
            return;

        const worse: number[] = [];
        for (let head = 0; head < shape.heads; head++) {
            const without = withoutHeads(current, shape, [head]);
            await this.score(without, size, "heads");
            if (isBetter(this.gainOf(without, size, current)))
                worse.push(head);
        }
        if (worse.length > 0 && worse.length < shape.heads) {
            const without = withoutHeads(current, shape, worse);
            await this.score(without, items, "heads");
            if (isBetter(this.gainOf(without, items, current)))
                this.best = without;
        }
        this.note("heads", shape.heads, size, this.best!);
    }

    private get left(): number {
        return this.options.budget - this.spent;
    }

    private async score(setting: Setting | undefined, size: number, stage: string): Promise<void> {
        const key = setting == null ? "plain" : keyOf(setting);
        const scores = this.scores.get(key) ?? [];
        this.scores.set(key, scores);
        if (scores.length >= size)
            return;

        const more = size - scores.length;
        scores.push(...await this.options.score(setting, scores.length, size));
        if (setting != null)
            this.spent += more;
        this.options.onProgress?.({stage, done: this.spent, all: this.options.budget});
    }

    /** Compared with the plain model, or with another setting, on the first items. */
    private gainOf(setting: Setting, size: number, other?: Setting): Gain {
        return meanDifference(this.logLikelihoods(keyOf(setting), size), this.logLikelihoods(other == null ? "plain" : keyOf(other), size));
    }

    /** Of the first items, at the sharpness that suits them best. */
    private logLikelihoods(key: string, size: number): readonly number[] {
        const place = `${size} ${key}`;
        let values = this.fitted.get(place);
        if (values == null) {
            const scores = this.scores.get(key)!.slice(0, size);
            values = logLikelihoodsOf(scores, fitSharpness(scores));
            this.fitted.set(place, values);
        }
        return values;
    }

    private note(stage: string, tried: number, items: number, setting: Setting): void {
        this.stages.push({stage, tried, items, best: this.gainOf(setting, items), setting});
    }
}

function meanDifference(values: readonly number[], others: readonly number[]): Gain {
    const differences = values.map((value, index) => value - others[index]!);
    const mean = differences.reduce((sum, difference) => sum + difference, 0) / differences.length;
    const variance = differences.reduce((sum, difference) => sum + (difference - mean) ** 2, 0) / (differences.length - 1);
    return {mean, standardError: Math.sqrt(variance / differences.length), items: differences.length};
}

function isBetter({mean, standardError}: Gain): boolean {
    return mean > 0 && mean > standardError;
}

function isClearlyWorse({mean, standardError}: Gain): boolean {
    return mean + 3 * standardError < 0;
}
