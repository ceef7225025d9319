import {spawn} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {setTimeout as wait} from "node:timers/promises";
import test from "ava";
import {emulateAttention, getLlama, saveProfile} from "reattend";
import {embeddedModelPath} from "#dist/cli/flags.js";
import {cliPath, runCli} from "../support/cli.js";
import {randomTensors, writeRandomModel} from "../support/randomModel.js";
import type {ExecutionContext} from "ava";
import type {AttentionProfile} from "reattend";

type Result = {item: string, arm: string, subject: string, prompt: string, data: string, model: string, options: string, tokens: number};
type Report = {
    items: number,
    settings: {arms: Array<{name: string}>, shots: number, examples: Array<{file: string, sha256: string}>},
    metrics: Array<{metric: string, arms: Array<{arm: string, right: number, count: number, accuracy: number, difference?: {p: number}}>}>,
    generation?: Array<{unreadable: number, tokens: number}>,
    perplexity?: Array<{
        arm: string, perplexity: number, interval: [number, number], sameTop?: number, logRatio?: {p: number},
        divergence?: {mean: number, median: number, percentile90: number, percentile99: number, largest: number}
    }>,
    badRows: Array<{file: string, line: number, problem: string}>,
    leftOut: unknown[]
};

async function newFolder(t: ExecutionContext): Promise<string> {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    return folder;
}

const written = ["evaluate", "--task", "embedded", "--threads", "1", "--limit", "120", "--arms", "plain,early-layer,all", "--strength", "1"];

async function evaluate(
    t: ExecutionContext, args: readonly string[], folder: string
): Promise<{report: Report, results: Result[], stderr: string}> {
    const {code, stdout, stderr} = await runCli([...args, "--output", folder, "--json"]);
    t.is(code, 0, stderr);
    const lines = (await fs.readFile(path.join(folder, "results.jsonl"), "utf8")).trim().split("\n");
    return {report: JSON.parse(stdout) as Report, results: lines.map((line) => JSON.parse(line) as Result), stderr};
}

/** What a run leaves that tells it from another one. */
async function contents(folder: string): Promise<string[]> {
    return await Promise.all(["run.json", "results.jsonl", "report.json", "report.md", "report.html"].map((name) => (
        fs.readFile(path.join(folder, name), "utf8")
    )));
}

/** Starts a run, and sends a signal once so many lines are written. */
async function interrupt(
    args: readonly string[], folder: string, lines: number, signal: NodeJS.Signals
): Promise<{code: number | null, stderr: string}> {
    const child = spawn(process.execPath, [cliPath, ...args, "--output", folder]);
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
        stderr += chunk.toString();
    });
    const exit = new Promise<number | null>((resolve) => child.on("close", resolve));
    while (child.exitCode == null) {
        const text = await fs.readFile(path.join(folder, "results.jsonl"), "utf8").catch(() => "");
        if (text.split("\n").length > lines)
            break;
        await wait(5);
    }
    child.kill(signal);
    return {code: await exit, stderr};
}

test.serial("the same items under all arms; the same command gives the same files; killed or interrupted, it goes on to the same end", async (t) => {
    const folder = await newFolder(t);
    const whole = path.join(folder, "whole");
    const {report, results} = await evaluate(t, written, whole);

    t.is(report.items, 120);
    const itemsOf = (arm: string) => results.filter((result) => result.arm === arm).map(({item, prompt}) => `${item} ${prompt}`);
    t.is(itemsOf("plain").length, 120);
    t.deepEqual(itemsOf("early-layer"), itemsOf("plain"));
    t.deepEqual(itemsOf("all"), itemsOf("plain"));
    for (const {data, model, options, prompt} of results) {
        for (const hash of [data, model, options, prompt])
            t.regex(hash, /^[0-9a-f]{16}$/);
    }
    t.is(new Set(results.map(({subject}) => subject)).size, 12);
    t.is(report.generation![0]!.unreadable, 0);
    t.true(report.metrics[0]!.arms[0]!.accuracy > 0.95);

    const again = path.join(folder, "again");
    await evaluate(t, written, again);
    t.deepEqual(await contents(again), await contents(whole));

    // a finished run is not computed anew
    const {report: same} = await evaluate(t, written, whole);
    t.deepEqual(same, report);

    const killed = path.join(folder, "killed");
    await interrupt(written, killed, 40, "SIGKILL");
    await fs.appendFile(path.join(killed, "results.jsonl"), '{"item": "half a l'); // as if it had been killed while writing
    const before = (await fs.readFile(path.join(killed, "results.jsonl"), "utf8")).split("\n").length - 1;
    t.true(before >= 40 && before < 360, String(before));
    const {stderr} = await evaluate(t, written, killed);
    t.regex(stderr, new RegExp(`Going on with the run in .*: ${before} results are there`));
    t.deepEqual(await contents(killed), await contents(whole));

    const interrupted = path.join(folder, "interrupted");
    const {code, stderr: message} = await interrupt(written, interrupted, 90, "SIGINT");
    t.is(code, 130, message);
    t.regex(message, /the same command again goes on from here/);
    await t.throwsAsync(fs.access(path.join(interrupted, "report.md")));
    await evaluate(t, written, interrupted);
    t.deepEqual(await contents(interrupted), await contents(whole));
});

test.serial("another setting is refused, by its name; so are folders with other things and damaged results", async (t) => {
    const folder = await newFolder(t);
    const args = ["evaluate", "--task", "embedded", "--way", "letter", "--threads", "1", "--limit", "12", "--arms", "early-layer"];
    await evaluate(t, args, folder);

    const limit = await runCli([...args, "--output", folder, "--limit", "13"]);
    t.is(limit.code, 1);
    t.regex(limit.stderr, /holds a run with another setting: limit was 12 and is 13 now/);
    const arms = await runCli([...args, "--output", folder, "--strength", "0.3"]);
    t.is(arms.code, 1);
    t.regex(arms.stderr, /another setting: arms was .*0\.2.* and is .*0\.3/);

    const results = path.join(folder, "results.jsonl");
    const text = await fs.readFile(results, "utf8");
    await fs.writeFile(results, text.replace("\n", "\nno result\n"));
    const damaged = await runCli([...args, "--output", folder]);
    t.is(damaged.code, 1);
    t.regex(damaged.stderr, /results\.jsonl, line 2 is no result of this run/);

    await fs.rm(path.join(folder, "run.json"));
    const other = await runCli([...args, "--output", folder]);
    t.is(other.code, 1);
    t.regex(other.stderr, /has other things in it/);
});

test.serial("of two runs that begin in one folder, one is refused", async (t) => {
    const folder = await newFolder(t);
    const runs = await Promise.all(["1", "0.5"].map((strength) => runCli([...written, "--strength", strength, "--output", folder])));
    t.deepEqual(runs.map(({code}) => code).sort(), [0, 1]);
    t.regex(runs.find(({code}) => code === 1)?.stderr ?? "", /another run has begun in|holds a run with another setting/);
});

test.serial("bad rows are named on stderr and in the report, and counted", async (t) => {
    const folder = await newFolder(t);
    const data = path.join(folder, "philosophy_test.csv");
    await fs.writeFile(data, "Is it?,1,2,3,4,A\nIs it?,1,2\nWho?,Max,Ben,Tom,Ann,C\n");
    const {report, stderr} = await evaluate(t, ["evaluate", "--task", "mmlu", "--data", data, "--threads", "1", "--arms", "plain"], path.join(folder, "o"));
    t.is(report.items, 2);
    t.deepEqual(report.badRows.map(({line, problem}) => [line, problem]), [[2, "3 columns instead of 6"]]);
    t.regex(stderr, /1 row is no item, and left out:\s+\S*philosophy_test\.csv, line 2: 3 columns instead of 6/);
    t.regex(await fs.readFile(path.join(folder, "o", "report.md"), "utf8"), /Rows that are no items: 1\.[\s\S]*line 2: 3 columns instead of 6/);
});

test.serial("texts of options, with acc and acc_norm; items that are too long are named", async (t) => {
    const folder = await newFolder(t);
    await fs.writeFile(path.join(folder, "valid.jsonl"), [
        {goal: "Max tower. Where is Max?", sol1: "tower", sol2: "at the station of the town"},
        {goal: "Ann hall. ".repeat(60), sol1: "x", sol2: "y"},
        {goal: "Who has the key?", sol1: "Max", sol2: "Alice"}
    ].map((row) => `${JSON.stringify(row)}\n`).join(""));
    await fs.writeFile(path.join(folder, "valid-labels.lst"), "0\n1\n1\n");
    const args = ["evaluate", "--task", "piqa", "--data", folder, "--threads", "1", "--arms", "plain,all", "--context-size", "128"];
    const {report} = await evaluate(t, args, path.join(folder, "o"));
    t.deepEqual(report.metrics.map(({metric}) => metric), ["acc", "acc_norm"]);
    t.is(report.items, 2);
    t.is(report.leftOut.length, 1);
    t.regex(JSON.stringify(report.leftOut), /valid:2.*needs \d+ tokens of context, but there are 128/);
});

test.serial("examples before each question; with other ones a run does not go on", async (t) => {
    const folder = await newFolder(t);
    const [data, shots] = [path.join(folder, "own.jsonl"), path.join(folder, "shots.jsonl")];
    const line = (question: string, answer: number) => `${JSON.stringify({question, options: ["tower", "station"], answer})}\n`;
    await fs.writeFile(data, line("Max tower, Alice station. Where is Max?", 0) + line("Max tower, Alice station. Where is Alice?", 1));
    await fs.writeFile(shots, line("Noah tower. Where is Noah?", 0) + line("Mia station. Where is Mia?", 1) + line("Who?", 0));
    const args = [
        "evaluate", "--task", "choice", "--data", data, "--threads", "1", "--arms", "plain,early-layer", "--strength", "1",
        "--shots-data", shots, "--shots"
    ];
    const output = path.join(folder, "two");
    const {report, results} = await evaluate(t, [...args, "2"], output);
    t.is(report.items, 2);
    t.is(report.settings.shots, 2);
    t.deepEqual(report.settings.examples.map(({file}) => file), ["shots.jsonl"]);
    t.regex(await fs.readFile(path.join(output, "report.md"), "utf8"), /2 examples before each question\.[\s\S]*\| shots\.jsonl \|/);
    const again = path.join(folder, "again");
    await evaluate(t, [...args, "2"], again);
    t.deepEqual(await contents(again), await contents(output));

    const promptsOf = (list: Result[]) => list.filter(({arm}) => arm === "plain").map(({prompt}) => prompt);
    const {results: one} = await evaluate(t, [...args, "1"], path.join(folder, "one"));
    t.is(new Set([...promptsOf(results), ...promptsOf(one)]).size, 4);

    const fewer = await runCli([...args, "1", "--output", output]);
    t.is(fewer.code, 1);
    t.regex(fewer.stderr, /holds a run with another setting: shots was 2 and is 1 now/);
    await fs.appendFile(shots, line("Who?", 1));
    const changed = await runCli([...args, "2", "--output", output]);
    t.is(changed.code, 1);
    t.regex(changed.stderr, /another setting: examples was .* and is .* now/);
    const tooFew = await runCli([...args, "5", "--output", path.join(folder, "five")]);
    t.is(tooFew.code, 1);
    t.regex(tooFew.stderr, /shots\.jsonl has 4 items, but --shots 5 needs 5/);
});

test.serial("a model whose logits are not numbers is an error that names the question, not a wrong answer", async (t) => {
    const folder = await newFolder(t);
    const options = {architecture: "llama", layers: 2, seed: 1} as const;
    const tensors = randomTensors(options);
    tensors.get("output_norm.weight")!.values.fill(NaN);
    const model = path.join(folder, "model.gguf");
    await writeRandomModel(model, options, tensors);
    const questions = path.join(folder, "questions.jsonl");
    const line = (id: string) => JSON.stringify({id, question: `x ${id}`, options: ["a", "b"], answer: "a"});
    await fs.writeFile(questions, Array.from({length: 16}, (_, i) => line(`q${i}`)).join("\n"));
    const text = path.join(folder, "text.txt");
    await fs.writeFile(text, "abcdefgh");

    const output = ["--output", path.join(folder, "output")];
    const shared = ["--model", model, "--threads", "1"];
    const message = /^reattend: the model's logits are not numbers at the (question q\d+|text .*text)/m;
    for (const args of [
        ["evaluate", "--task", "choice", "--data", questions, ...output],
        ["evaluate", "--task", "choice", "--data", questions, ...output, "--way", "text"],
        ["evaluate", "--task", "choice", "--data", questions, ...output, "--way", "generation"],
        ["evaluate", "--task", "text", "--data", text, ...output],
        ["tune", "--task", "choice", "--data", questions, "--output", path.join(folder, "profile.json")]
    ]) {
        const {code, stderr} = await runCli([...args, ...shared]);
        t.is(code, 1, stderr);
        t.regex(stderr, message);
        await fs.rm(path.join(folder, "output"), {recursive: true, force: true});
    }
});

test.serial("perplexity and divergence of texts", async (t) => {
    const folder = await newFolder(t);
    await fs.writeFile(path.join(folder, "x.txt"), "Where people are: Max tower, Alice station. ".repeat(20));
    await fs.writeFile(path.join(folder, "zero.json"), '{"strength": 0}');
    const args = [
        "evaluate", "--task", "text", "--data", path.join(folder, "x.txt"), "--threads", "1", "--window", "64",
        "--arms", `early-layer,${path.join(folder, "zero.json")}`, "--strength", "1"
    ];
    const {report, results} = await evaluate(t, args, path.join(folder, "o"));
    const [plain, steered, zero] = report.perplexity!;
    t.is(zero!.arm, "zero");
    t.is(zero!.perplexity, plain!.perplexity);
    t.is(zero!.sameTop, 1);
    t.is(zero!.logRatio!.p, 1);
    t.not(steered!.perplexity, plain!.perplexity);
    const {mean, median, percentile90, percentile99, largest} = steered!.divergence!;
    t.true(0 < median && median < percentile90 && percentile90 < percentile99 && percentile99 < largest && mean < largest);
    t.true(results.every(({arm, tokens, ...result}) => (
        (result as unknown as {divergences: number[]}).divergences.length === (arm === "plain" ? 0 : tokens)
    )));
    t.true(results.every(({arm, ...result}) => arm !== "zero" || (result as unknown as {divergence: number}).divergence < 1e-6));
    t.true(results.some(({arm, ...result}) => arm === "early-layer" && (result as unknown as {divergence: number}).divergence > 1e-4));
});

test.serial("a text too short for a token to be scored makes no result a NaN", async (t) => {
    const folder = await newFolder(t);
    const texts = path.join(folder, "texts");
    await fs.mkdir(texts);
    await fs.writeFile(path.join(texts, "short.txt"), "a");
    await fs.writeFile(path.join(texts, "long.txt"), "Where people are: Max tower, Alice station. ".repeat(20));
    const args = ["evaluate", "--task", "text", "--threads", "1", "--window", "64", "--arms", "early-layer"];
    const {report} = await evaluate(t, [...args, "--data", texts], path.join(folder, "o"));
    for (const {perplexity, interval} of report.perplexity!)
        t.true([perplexity, ...interval].every((value) => value > 0), `${perplexity}, ${String(interval)}`);

    const {code, stderr} = await runCli([...args, "--data", path.join(texts, "short.txt"), "--output", path.join(folder, "none")]);
    t.is(code, 1);
    t.regex(stderr, /no item/);
});

const usageErrors: Array<[title: string, args: string[], code: number, message: RegExp]> = [
    ["an unknown task", ["--task", "x"], 2, /--task is "x"; allowed are mmlu, /],
    ["no data", ["--task", "mmlu"], 2, /--data is missing/],
    ["a way that the task hasn't", ["--task", "embedded", "--way", "text"], 2, /allowed for the task embedded are generation and letter/],
    ["an unknown arm", ["--task", "embedded", "--arms", "plain,some"], 2, /--arms has "some"; allowed are plain, early-layer/],
    ["two arms of one name", ["--task", "embedded", "--strength", "1,1"], 2, /make two arms of the name early-layer@1/],
    ["an arm that the model doesn't allow", ["--task", "embedded", "--limit", "2", "--arms", "all", "--source-layer", "50"], 2, /the arm all: sourceLayer is 50/],
    ["a missing profile", ["--task", "embedded", "--arms", "none.json"], 1, /cannot read the arm none\.json: there is no such file/],
    ["a bad template", ["--task", "embedded", "--limit", "2", "--template", "chatml"], 2, /--template is "chatml"; allowed are own and none/],
    ["a bad pattern", ["--task", "free-form", "--data", "package.json", "--answer-pattern", "("], 2, /--answer-pattern is no regular expression/],
    ["no whole number of shots", ["--task", "mmlu", "--shots", "1.5"], 2, /--shots is "1\.5"; allowed are whole numbers of at least 0/],
    ["shots below 0", ["--task", "mmlu", "--shots", "-1"], 2, /--shots is "-1"; allowed are whole numbers of at least 0/],
    ["shots for a task without", ["--task", "embedded", "--way", "letter", "--shots", "2"], 2, /--shots is 2, but the task embedded is asked without/],
    ["shots for texts", ["--task", "text", "--data", "README.md", "--shots", "2"], 2, /--shots is 2, but the task text is asked without examples/],
    [
        "shots for written answers", ["--task", "mmlu", "--data", "x", "--way", "generation", "--shots", "2"], 2,
        /--shots is 2, but with --way generation questions are asked without examples/
    ],
    ["shots without a file of examples", ["--task", "piqa", "--data", "x", "--shots", "2"], 2, /--shots-data is missing: the file with the examples/],
    ["a file of examples without shots", ["--task", "piqa", "--data", "x", "--shots-data", "x"], 2, /--shots-data is given, but --shots is 0/],
    [
        "a file of examples for MMLU", ["--task", "mmlu", "--data", "x", "--shots", "1", "--shots-data", "x"], 2,
        /--shots-data is given, but the task mmlu has its examples in dev files/
    ],
    ["a missing file of examples", ["--task", "choice", "--data", "models/questions.jsonl", "--shots", "1", "--shots-data", "none"], 1, /cannot read/],
    ["missing data", ["--task", "piqa", "--data", "none"], 1, /cannot read none: there is no such file or folder/],
    ["a window beyond the context", ["--task", "text", "--data", "README.md", "--window", "5000"], 1, /the window of 5000 tokens is longer than the model's context of 512/]
];

for (const [title, args, expected, message] of usageErrors) {
    test.serial(`${title}: one sentence, exit code ${expected}, nothing left behind`, async (t) => {
        const folder = await newFolder(t);
        const {code, stdout, stderr} = await runCli(["evaluate", "--threads", "1", ...args, "--output", folder]);
        t.is(code, expected, stderr);
        t.is(stdout, "");
        t.regex(stderr, message);
        t.false(stderr.includes("    at "), "a stack trace is shown");
        t.deepEqual(await fs.readdir(folder), []);
    });
}

test.serial("a saved profile is an arm; one of another version, or for another model, is refused", async (t) => {
    const folder = await newFolder(t);
    const file = path.join(folder, "tuned.json");
    const {profile, other} = await makeProfiles();
    await saveProfile(file, profile);
    const args = ["evaluate", "--task", "embedded", "--way", "letter", "--threads", "1", "--limit", "8", "--arms", `plain,all,${file}`, "--strength", "1"];

    const {results} = await evaluate(t, args, path.join(folder, "results"));
    const chosen = (arm: string) => results.filter((result) => result.arm === arm).map((result) => ({...result, arm: "", options: ""}));
    t.is(chosen("tuned").length, 8);
    t.deepEqual(chosen("tuned"), chosen("all")); // the same options

    await fs.writeFile(file, JSON.stringify({...profile, version: 2}));
    const newer = await runCli([...args, "--output", path.join(folder, "newer")]);
    t.is(newer.code, 1);
    t.regex(newer.stderr, /cannot read the arm .*tuned\.json: .*version/);

    await fs.writeFile(file, JSON.stringify(other));
    const foreign = await runCli([...args, "--output", path.join(folder, "foreign")]);
    t.is(foreign.code, 2, foreign.stderr);
    t.regex(foreign.stderr, /the arm tuned: The profile is for another model/);
});

async function makeProfiles(): Promise<{profile: AttentionProfile, other: AttentionProfile}> {
    const llama = await getLlama({maxThreads: 1, gpu: false});
    const model = await llama.loadModel({modelPath: embeddedModelPath});
    const context = await model.createContext({contextSize: 64});
    const profile = emulateAttention(context, {pattern: "all", strength: 1}).createProfile();
    await llama.dispose();
    return {profile, other: {...profile, model: {...profile.model, hash: `sha256:${"0".repeat(64)}`}}};
}
