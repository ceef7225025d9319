import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {readAnswer} from "#dist/evaluate/answer.js";
import {chooseQuestions, readQuestions} from "#dist/evaluate/questions.js";
import {mcnemarExact, wilsonInterval} from "#dist/evaluate/statistics.js";

const answers: Array<[text: string, letter: string | undefined]> = [
    ["Analysis: Ann is in the hall. So hall (B).\nResponse: B", "B"],
    ["Response: C.", "C"],
    ["Response: (D) the hall", "D"],
    ["**Response:** A", "A"],
    ["**Response**: \"A\"", "A"],
    ["response: Option B", "B"],
    ["Response:\nC", "C"],
    ["Response: A\nNo, wait.\nResponse: B", "B"],
    ["Response: Because it is so", undefined],
    ["Response: hall", undefined],
    ["Response: b", "B"],
    ["Response: A\nResponse:", "A"],
    ["Analysis: B", undefined],
    ["My responses: B", undefined],
    ["", undefined]
];

for (const [text, letter] of answers) {
    test(`the answer in ${JSON.stringify(text)} is ${letter ?? "unreadable"}`, (t) => {
        t.is(readAnswer(text), letter);
    });
}

test("Wilson intervals agree with published ones", (t) => {
    // Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I
    const published: Array<[successes: number, count: number, low: number, high: number]> = [
        [81, 263, 0.2553, 0.3662],
        [15, 148, 0.0624, 0.1605],
        [0, 20, 0, 0.1611],
        [1, 29, 0.0061, 0.1718]
    ];
    for (const [successes, count, low, high] of published)
        t.deepEqual(wilsonInterval(successes, count).map((bound) => bound.toFixed(4)), [low, high].map((bound) => bound.toFixed(4)));
    t.deepEqual(wilsonInterval(0, 0), [0, 1]);
});

test("McNemar's exact test is a two-sided sign test of the questions that only one got right", (t) => {
    t.is(mcnemarExact(0, 0), 1);
    t.is(mcnemarExact(3, 3), 1);
    t.is(mcnemarExact(5, 0).toFixed(6), (2 / 2 ** 5).toFixed(6));
    t.is(mcnemarExact(2, 8).toFixed(6), (2 * (1 + 10 + 45) / 2 ** 10).toFixed(6));
    t.is(mcnemarExact(8, 2), mcnemarExact(2, 8));
    t.true(mcnemarExact(5000, 5200) > 0.04 && mcnemarExact(5000, 5200) < 0.06); // the normal approximation gives 0.049
});

test("questions are chosen evenly over the families, and the same ones for the same seed", (t) => {
    const questions = ["x", "y", "z"].flatMap((family) => (
        Array.from({length: 10}, (_, index) => ({id: `${family}${index}`, family, question: "?", answer: "A"}))
    ));
    const chosen = chooseQuestions(questions, 7, 1);
    const perFamily = ["x", "y", "z"].map((name) => chosen.filter(({family}) => family === name).length);
    t.deepEqual(perFamily.sort(), [2, 2, 3]);
    t.is(new Set(chosen).size, 7);
    t.deepEqual(chooseQuestions(questions, 7, 1), chosen);
    t.notDeepEqual(chooseQuestions(questions, 7, 2), chosen);
    t.is(chooseQuestions(questions, 100, 1).length, 30);
});

test("a bad line of a file of questions is named", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    const file = path.join(folder, "questions.jsonl");

    await fs.writeFile(file, '{"id": "1", "family": "x", "question": "?", "answer": "A"}\n\n{"id": "2"}\n');
    await t.throwsAsync(readQuestions(file), {instanceOf: SyntaxError, message: /line 3 has no text in the field "family"/});
    await fs.writeFile(file, "no JSON\n");
    await t.throwsAsync(readQuestions(file), {instanceOf: SyntaxError, message: /line 1 is not JSON/});
});
