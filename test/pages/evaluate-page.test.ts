import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {titleOfReport} from "#dist/evaluate/report.js";
import {summarizeChoices, summarizeTexts} from "#dist/evaluate/summary.js";
import {renderHtmlPage} from "#dist/htmlPage.js";
import {openFile, testInBrowser} from "../support/browser.js";
import type {EvaluationReport} from "#dist/evaluate/report.js";
import type {ChoiceResult, TextResult} from "#dist/evaluate/results.js";
import type {ExecutionContext} from "ava";

const arms = ["plain", "early-layer", "all"];
const hostile = "</script><script>document.title = 'taken'</script>";

/** Made-up results: `all` gets every item of the first subject wrong. */
const choices = new Map(arms.map((arm) => [arm, Array.from({length: 200}, (_, index): ChoiceResult => {
    const subject = `subject ${index % 5}`;
    return {
        item: `i${index}`, arm, subject, group: index % 5 < 2 ? "STEM" : "other", prompt: "", data: "", model: "", options: "",
        choices: 2, answer: 0, chosen: Number(arm === "all" && index % 5 === 0), chosenNormalized: index % 2, logLikelihoods: [0, 0], tokens: 1
    };
})]));

const texts = new Map(arms.map((arm, place) => [arm, Array.from({length: 12}, (_, index): TextResult => ({
    item: `w${index}`, arm, subject: "text", prompt: "", data: "", model: "", options: "", tokens: 100, loss: 200 + index + 3 * place,
    divergence: place, divergences: Array.from({length: 100}, () => place / 100), sameTop: 100 - place
}))]));

function reportOf(results: Pick<EvaluationReport, "metrics" | "perplexity">): EvaluationReport {
    return {
        version: 1,
        settings: {
            reattend: "0.0.0", task: "choice", way: "text", template: "none", model: {file: hostile, sha256: "00"}, data: [],
            shots: 0, examples: [], limit: null, seed: 1, sequences: 8, contextSize: null, maxTokens: null, window: null, pattern: null,
            cacheTypeK: "f16", cacheTypeV: "f16", flashAttention: true,
            arms: arms.map((name) => ({name, emulation: name === "plain" ? null : {strength: 1}}))
        },
        items: 200,
        badRows: [{file: "x.jsonl", line: 7, problem: hostile}],
        leftOut: [],
        ...results
    };
}

async function open(t: ExecutionContext, report: EvaluationReport, options = {}) {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    const file = path.join(folder, "report.html");
    await fs.writeFile(file, await renderHtmlPage({page: "evaluate", title: titleOfReport(report), data: report, summary: ""}));
    return await openFile(t, file, options);
}

testInBrowser("the page of an evaluation has its numbers in tables and in charts", async (t) => {
    const {page} = await open(t, reportOf({metrics: summarizeChoices(choices, "text", 1)}));
    t.is(await page.title(), `choice by text: ${hostile}`);
    t.is(await page.locator("h1").textContent(), `choice by text: ${hostile}`);

    const row = page.locator("table").first().locator("tbody tr").nth(2);
    t.deepEqual((await row.locator("th, td").allTextContents()).slice(0, 3), ["all", "160 of 200", "80.0 %"]);
    t.true((await page.locator(".verdicts li").allTextContents()).some((text) => text.startsWith("all (acc): worse than plain by 20.0 points")));

    // a dot for each arm, and of those that are compared one for each group and subject
    t.is(await page.locator("figure").nth(0).locator("circle").count(), 3);
    t.is(await page.locator("figure").nth(1).locator("circle").count(), 2);
    t.is(await page.locator("figure").nth(2).locator("circle").count(), 2 * 2);
    t.is(await page.locator("figure").nth(3).locator("circle").count(), 2 * 5);

    await page.getByText("acc_norm", {exact: true}).click();
    t.regex((await page.locator("h2").first().textContent())!, /acc_norm/);
    t.is(await page.locator("table").first().locator("tbody tr td").first().textContent(), "100 of 200");
});

testInBrowser("the page of perplexities, in a narrow window and dark colours", async (t) => {
    const {page} = await open(t, reportOf({metrics: [], perplexity: summarizeTexts(texts, 1)}), {
        viewport: {width: 390, height: 800}, colorScheme: "dark"
    });
    t.is(await page.locator("figure circle").count(), 2);
    t.is(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), true);
});

test("a report says in words what its numbers say", (t) => {
    const [acc] = summarizeChoices(choices, "text", 1);
    t.is(acc!.guessing, 0.5);
    t.is(acc!.controls.length, 1);
    t.is(acc!.arms[2]!.difference!.onlyPlain, 40);
    t.deepEqual(acc!.groups.map(({name}) => name), ["STEM", "other"]);

    const [, steered] = summarizeTexts(texts, 1);
    t.is(steered!.logRatio!.value.toFixed(6), (0.03).toFixed(6));
    t.is(steered!.divergence!.mean, 0.01);
    t.is(steered!.sameTop, 0.99);
});
