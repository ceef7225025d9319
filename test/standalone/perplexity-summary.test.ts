import test from "ava";
import {divergenceTable, notesFor, perplexityTable, verdicts} from "#dist/evaluate/report.js";
import {summarizeTexts} from "#dist/evaluate/summary.js";
import type {EvaluationReport} from "#dist/evaluate/report.js";
import type {TextResult} from "#dist/evaluate/results.js";

/*
 * Perplexities and divergences of made-up windows, against what is easily computed by hand.
 */

type Window = {loss: number, divergences?: number[], sameTop?: number, subject?: string};

/** Windows of 2, 3 and 5 tokens, unless there are more of them. */
function resultsOf(arm: string, windows: readonly Window[]): TextResult[] {
    return windows.map(({loss, divergences = [], sameTop = 0, subject = "text"}, index) => ({
        item: `text:${index}`, arm, subject, prompt: "", data: "", model: "", options: "", tokens: [2, 3, 5][index % 3]!,
        loss, divergence: divergences.reduce((sum, value) => sum + value, 0), divergences, sameTop
    }));
}

function summaryOf(arms: Record<string, readonly Window[]>) {
    return summarizeTexts(new Map(Object.entries(arms).map(([arm, windows]) => [arm, resultsOf(arm, windows)])), 1);
}

const plain: Window[] = [{loss: 2}, {loss: 3}, {loss: 10}];

test("divergences: mean, percentiles, the largest, and how often the likeliest token is the same", (t) => {
    const [reference, steered] = summaryOf({
        plain,
        steered: [
            {loss: 2, divergences: [9, 0], sameTop: 1},
            {loss: 3, divergences: [4, 1, 6], sameTop: 3},
            {loss: 10, divergences: [8, 3, 2, 5, 7], sameTop: 3}
        ]
    });
    t.is(reference!.divergence, undefined);
    t.is(reference!.sameTop, undefined);

    // of 0, 1, ..., 9
    const {mean, median, percentile90, percentile99, largest} = steered!.divergence!;
    t.deepEqual([mean, median, largest], [4.5, 4.5, 9]);
    t.is(percentile90.toFixed(9), (8.1).toFixed(9));
    t.is(percentile99.toFixed(9), (8.91).toFixed(9));
    t.is(steered!.sameTop, 0.7);

    const [, row] = divergenceTable([reference!, steered!]);
    t.deepEqual([...row!.slice(0, 2), ...row!.slice(3)], ["steered", "4.50", "4.50", "8.10", "8.91", "9.00", "70.0 %"]);
});

test("the difference of log-perplexities is per token, and its p, corrected for the number of arms, the paired bootstrap's", (t) => {
    const summary = summaryOf({
        plain,
        mixed: [{loss: 2 + 4}, {loss: 3 - 1}, {loss: 10 - 1}],
        worse: [{loss: 2.5}, {loss: 4}, {loss: 10.1}],
        same: plain
    });
    const [reference, mixed, worse, same] = summary;
    t.is(reference!.perplexity.toFixed(9), Math.exp(15 / 10).toFixed(9));
    t.is(reference!.logRatio, undefined);
    t.deepEqual(reference!.bootstrap, {units: "windows", count: 3});

    t.is(mixed!.logRatio!.value.toFixed(9), (2 / 10).toFixed(9));
    // windows drawn three times: below 0 only where the first is not among them, which is in 8 of 27 samples
    t.true(Math.abs(mixed!.logRatio!.p - 16 / 27) < 0.02, String(mixed!.logRatio!.p));
    t.is(worse!.logRatio!.value.toFixed(9), (1.6 / 10).toFixed(9));
    t.is(worse!.logRatio!.p, 1 / 4); // three windows that agree, by a sign test
    t.is(same!.logRatio!.p, 1);

    // Holm: 3 · 0.25, 2 · 16/27, 1 · 1
    t.deepEqual([mixed, worse, same].map((one) => one!.logRatio!.corrected), [1, 0.75, 1]);
    t.deepEqual(perplexityTable(summary)[3]!.slice(-2), ["0.25", "0.75"]);
});

test("of several texts whole ones are drawn; a finding has six of them at least", (t) => {
    const windowsOf = (texts: number, more: number): Window[] => (
        Array.from({length: 2 * texts}, (_, index) => ({loss: 4 + index % 2 + more, subject: `text ${index % texts}`, divergences: [more]}))
    );
    const reportOf = (texts: number) => ({
        metrics: [], perplexity: summaryOf({plain: windowsOf(texts, 0), steered: windowsOf(texts, 0.5)})
    }) as unknown as EvaluationReport;

    const five = reportOf(5);
    t.deepEqual(five.perplexity![1]!.bootstrap, {units: "texts", count: 5});
    t.is(five.perplexity![1]!.logRatio!.p, 1 / 16);
    t.regex(verdicts(five)[0]!, /^steered: perplexity \+\S+ % against plain \(.* to .*\), well within chance \(corrected p = 0\.063\)\.$/);
    t.true(notesFor(five).includes("The bootstrap draws whole texts, of which there are 5."));
    t.true(notesFor(five).some((note) => note.startsWith("With so few texts to draw from")));

    const many = reportOf(30);
    t.regex(verdicts(many)[0]!, /, seldom by chance alone \(corrected p < 0\.001\)\.$/);
    t.false(notesFor(many).some((note) => note.startsWith("With so few")));
});
