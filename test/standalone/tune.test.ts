import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {gainsOf} from "#dist/emulation/schedule.js";
import {seededRandom} from "#dist/random.js";
import {firstCandidates, keyOf, withoutHeads} from "#dist/tune/candidates.js";
import {ScoreFile, ScoreFileError} from "#dist/tune/ScoreFile.js";
import {BudgetError, costOfRounds, roundSizes, search} from "#dist/tune/search.js";
import {compareScores, isConfirmed, split} from "#dist/tune/tune.js";
import type {Setting} from "#dist/tune/candidates.js";
import {fitSharpness, logLikelihoodsOf} from "#dist/tune/score.js";
import type {ItemScore} from "#dist/tune/score.js";
import type {Scorer} from "#dist/tune/search.js";

const shape = {layers: 8, heads: 4};
const space = {shape, patterns: ["early-layer", "all", "first-token"] as const, sourceLayer: 0};

/** Items of two options whose difference is the item's own, plus a little noise of the setting, plus what `effectOf` says. */
function makeScorer(effectOf: (setting: Setting) => number, noise = 0.3, base = -1.3): Scorer {
    return (setting, from, to) => Promise.resolve(Array.from({length: to - from}, (_, i): ItemScore => {
        const item = from + i;
        const own = 4 * seededRandom(item)() + base;
        const added = setting == null
            ? 0
            : effectOf(setting) + noise * (seededRandom(item + hash(keyOf(setting)))() - 0.5);
        return {options: [own + added, 0], answer: 0, right: own + added > 0};
    }));
}

function hash(text: string): number {
    return Array.from(text).reduce((sum, letter) => Math.imul(sum, 31) + letter.charCodeAt(0) | 0, 7);
}

test("candidates: distinct, allowed, the same for a seed, the authors' values first", (t) => {
    const candidates = firstCandidates(space, 100, 1);
    t.is(candidates.length, 100);
    t.is(new Set(candidates.map(keyOf)).size, 100);
    t.deepEqual(candidates, firstCandidates(space, 100, 1));
    t.notDeepEqual(candidates, firstCandidates(space, 100, 2));
    t.deepEqual(candidates[0], {
        pattern: "early-layer", strength: 0.2, threshold: 0.01, schedule: "linear", normalize: false, sourceLayer: 0, seed: 0
    });
    t.true(candidates.some(({strength}) => strength < 0));
    t.true(candidates.every(({pattern, normalize}) => pattern === "all" ? !normalize : pattern !== "first-token" || normalize));
});

test("rounds: three times the items for a third of the candidates", (t) => {
    t.deepEqual(roundSizes(270), [10, 30, 90, 270]);
    t.deepEqual(roundSizes(20), [20]);
    t.is(costOfRounds(27, [10, 30, 90, 270]), 27 * 10 + 9 * 20 + 3 * 60 + 1 * 180);
});

test("a setting that helps is found: pattern, sign, layers, and the heads that hurt are left out", async (t) => {
    // early keys turned up help up to a gain of 1, in the first layers and but for head 2
    const effectOf = (setting: Setting) => {
        if (setting.pattern !== "early-layer")
            return -0.05;
        const gains = gainsOf(setting.schedule, shape).map((gain) => gain * setting.strength);
        const mean = (layers: number[], heads: number[]) => (
            layers.flatMap((layer) => heads.map((head) => gains[layer * shape.heads + head]!))
                .map((gain) => Math.max(-1, Math.min(gain, 1)))
                .reduce((sum, gain) => sum + gain, 0) / layers.length / heads.length
        );
        return 2 * mean([1, 2, 3], [0, 1, 3]) - 0.5 * mean([4, 5, 6, 7], [0, 1, 2, 3]) - 0.5 * mean([1, 2, 3], [2]);
    };
    const found = await search({...space, items: 120, budget: 6000, seed: 1, score: makeScorer(effectOf)});
    t.true(found.spent <= 6000);
    const {setting, gain} = found.best!;
    t.log(JSON.stringify(setting));
    t.is(setting.pattern, "early-layer");
    t.true(setting.strength > 0.3);
    t.true(gain.mean > 0.1, `${gain.mean}`);
    t.true(effectOf(setting) > 1);
    const gains = gainsOf(setting.schedule, shape);
    t.is(gains[1 * shape.heads + 2], 0, "the head that hurts is used");
    t.true(gains[1 * shape.heads + 1]! > 0);

    t.deepEqual(await search({...space, items: 120, budget: 6000, seed: 1, score: makeScorer(effectOf)}), found);
});

test("where everything hurts, the search stops early and finds nothing", async (t) => {
    const found = await search({...space, items: 120, budget: 6000, seed: 1, score: makeScorer(() => -3, 0.3, 0.5)});
    t.is(found.best, undefined);
    t.is(found.stages.length, 1);
    t.true(found.spent < 3000);
});

test("where nothing has an effect, what chance found on the training items is not confirmed", async (t) => {
    let confirmed = 0;
    let found = 0;
    for (let seed = 1; seed <= 40; seed++) {
        // other items in every repetition
        const score = (setting: Setting | undefined, from: number, to: number) => (
            makeScorer(() => 0, 1)(setting, from + 1000 * seed, to + 1000 * seed)
        );
        const {best} = await search({...space, items: 60, budget: 1500, seed, score});
        if (best == null)
            continue;
        found++;
        const comparison = compareScores({
            plain: await score(undefined, 500, 560), tuned: await score(best.setting, 500, 560), subjects: new Array<string>(60).fill("s")
        }, {
            plain: fitSharpness(await score(undefined, 0, 60)), tuned: fitSharpness(await score(best.setting, 0, 60))
        }, seed);
        confirmed += isConfirmed(comparison) ? 1 : 0;
    }
    t.log(`found ${found} of 40, confirmed ${confirmed}`);
    t.true(found >= 20, "the best of many should look good by chance");
    t.true(confirmed <= 4);
});

test("a budget that is too small is refused", async (t) => {
    await t.throwsAsync(search({...space, items: 120, budget: 10, seed: 1, score: makeScorer(() => 0)}), {
        instanceOf: BudgetError, message: /^the budget of 10 is too small: with 120 training items it takes \d+ to try anything$/
    });
});

test("a budget that just suffices is kept", async (t) => {
    for (const budget of [700, 1000, 2000]) {
        const {spent} = await search({...space, items: 100, budget, seed: 1, score: makeScorer(() => 0.1)});
        t.true(spent <= budget, `${spent} of ${budget}`);
    }
});

test("heads are left out in all layers", (t) => {
    const [first] = firstCandidates(space, 1, 1);
    const gains = gainsOf(withoutHeads(first!, shape, [1, 3]).schedule, shape);
    for (let layer = 0; layer < 8; layer++)
        t.deepEqual(Array.from(gains.subarray(4 * layer, 4 * layer + 4)).map((gain) => gain !== 0), [layer < 7, false, layer < 7, false]);
    t.deepEqual(withoutHeads({...first!, schedule: "constant"}, shape, []).schedule, new Array(8).fill(1));
});

test("splits: no item in both, subjects even, the same for a seed", (t) => {
    const items = Array.from({length: 90}, (_, id) => ({id, item: {subject: `s${id % 3}`, question: `q${id}`, options: ["a", "b"]}}));
    const {training, confirmation} = split(items, 1 / 3, 5);
    t.is(training.length, 60);
    t.is(confirmation.length, 30);
    t.is(new Set([...training, ...confirmation]).size, 90);
    for (const subject of ["s0", "s1", "s2"])
        t.is(confirmation.filter(({item}) => item.subject === subject).length, 10);
    t.deepEqual(split(items, 1 / 3, 5), {training, confirmation});
    t.notDeepEqual(split(items, 1 / 3, 6).training, training);
});

test("splits: a question that is there twice does not tell its answer", (t) => {
    const items = Array.from({length: 80}, (_, id) => ({item: {subject: "s", question: `q${id % 60}`, options: ["a", "b"]}}));
    const {training, confirmation} = split(items, 1 / 2, 1);
    t.is(training.length + confirmation.length, 80);
    const trained = new Set(training.map(({item}) => item.question));
    t.false(confirmation.some(({item}) => trained.has(item.question)));
    t.true(confirmation.length >= 25);
});

test("splits: subjects of any size have their share on both sides, and in each beginning", (t) => {
    const sizes = {large: 100, middle: 30, small: 10};
    const items = Object.entries(sizes).flatMap(([subject, size]) => Array.from({length: size}, (_, id) => (
        {item: {subject, question: `${subject} ${id}`, options: ["a", "b"]}}
    )));
    const {training, confirmation} = split(items, 0.5, 1);
    const countOf = (some: typeof items, name: string) => some.filter(({item}) => item.subject === name).length;
    for (const [subject, size] of Object.entries(sizes)) {
        t.is(countOf(training, subject), size / 2, subject);
        t.is(countOf(confirmation, subject), size / 2, subject);
        t.true(Math.abs(countOf(training.slice(0, 28), subject) - size / 5) <= 1, subject);
    }
});

test("better log-likelihoods are not confirmed where accuracy is lower", (t) => {
    const plain = Array.from({length: 40}, (): ItemScore => ({options: [1, 0], answer: 0, right: true}));
    const tuned = plain.map((_, index): ItemScore => ({options: [2 + index / 100, 0], answer: 0, right: index > 0}));
    const compare = (scores: ItemScore[]) => compareScores(
        {plain, tuned: scores, subjects: plain.map(() => "s")}, {plain: 1, tuned: 1}, 1
    );
    t.true(compare(tuned).logLikelihood.interval[0] > 0);
    t.false(isConfirmed(compare(tuned)));
    t.true(isConfirmed(compare(tuned.map((score) => ({...score, right: true})))));
});

test("how sure a model is of itself is no gain", (t) => {
    const random = seededRandom(1);
    const guesses = Array.from({length: 100}, (): ItemScore => (
        {options: [random(), random(), random(), random()].map((score) => 8 * score), answer: Math.floor(4 * random()), right: false}
    ));
    t.true(fitSharpness(guesses) < 0.1);
    t.true(logLikelihoodsOf(guesses, 0).every((value) => Math.abs(value + Math.log(4)) < 1e-12));

    const sure = guesses.map((score): ItemScore => (
        {...score, options: score.options.map((value, i) => value + (i === score.answer ? 4 : 0))}
    ));
    const unsure = sure.map((score): ItemScore => ({...score, options: score.options.map((value) => value / 5)}));
    const [ours, theirs] = [sure, unsure].map((items) => logLikelihoodsOf(items, fitSharpness(items))) as [number[], number[]];
    t.true(ours.every((value, i) => Math.abs(value - theirs[i]!) < 1e-4));
    t.true(Math.abs(fitSharpness(unsure) / fitSharpness(sure) - 5) < 1e-3);
});

test("scores that were computed are not computed again, but for a line that was cut off", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    const file = path.join(folder, "scores.jsonl");
    let computed = 0;
    const compute = () => Promise.resolve([{options: [-0.1234567890123], computed: ++computed}]);

    const first = ScoreFile.open(file, {seed: 1});
    const a = await first.get("a", compute);
    await first.get("b", compute);
    const text = await fs.readFile(file, "utf8");
    await fs.writeFile(file, text.slice(0, -10));

    const again = ScoreFile.open(file, {seed: 1});
    t.deepEqual(await again.get("a", compute), a);
    t.is(computed, 2);
    await again.get("b", compute);
    t.is(computed, 3);
    t.is(ScoreFile.open(file, {seed: 1}).size, 2);
    t.throws(() => ScoreFile.open(file, {seed: 2}), {instanceOf: ScoreFileError, message: /has scores of another run/});

    const empty = path.join(folder, "empty.jsonl");
    ScoreFile.open(empty, {seed: 1}); // without a score it blocks no other run
    t.is(ScoreFile.open(empty, {seed: 2}).size, 0);
    t.true((await fs.readFile(empty, "utf8")).includes('"seed":2'));
    await fs.writeFile(empty, "a line of something else");
    t.throws(() => ScoreFile.open(empty, {seed: 2}), {instanceOf: ScoreFileError});
    t.is(await fs.readFile(empty, "utf8"), "a line of something else");
    await fs.rm(folder, {recursive: true});
});
