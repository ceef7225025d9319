import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {loadProfile} from "reattend";
import {embeddedModelPath} from "#dist/cli/flags.js";
import {chatWrapperFor, openModelOnly} from "#dist/cli/model.js";
import {underArm} from "#dist/evaluate/arms.js";
import {createEvaluationContext} from "#dist/evaluate/context.js";
import {likeliest} from "#dist/evaluate/evaluate.js";
import {longestSequence, scoreChoices} from "#dist/evaluate/logLikelihood.js";
import {prepareItem} from "#dist/evaluate/prepareItem.js";
import {tasks} from "#dist/evaluate/tasks.js";
import {runCli} from "../support/cli.js";
import type {ChildProcess} from "node:child_process";
import type {AttentionEmulationOptions} from "reattend";
import type {CliResult} from "../support/cli.js";

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const inFolder = (name: string) => path.join(folder, name);
test.after.always(() => fs.rm(folder, {recursive: true}));

type Report = {
    profile: string | null,
    beatsPlain: boolean,
    setting: AttentionEmulationOptions | null,
    training: {accuracy: {plain: number, tuned: number}} | null,
    confirmation: {items: number, accuracy: {plain: number, tuned: number}, logLikelihood: {interval: [number, number]}} | null,
    search: {spent: number, budget: number}
};

async function runTune(args: readonly string[], onStart?: (child: ChildProcess) => void): Promise<CliResult> {
    return await runCli(["tune", "--task", "embedded", "--threads", "1", ...args], {onStart});
}

const flags = {
    gpu: "false", model: embeddedModelPath, threads: 1, cacheTypeK: "f16", cacheTypeV: "f16", flashAttention: true
} as const;

/** Questions to which the right answer is what the embedded model says under an emulation. */
async function writeQuestionsOf(emulation: AttentionEmulationOptions, count: number): Promise<string> {
    const lines = (await fs.readFile(tasks.embedded.defaultData, "utf8")).split("\n").slice(0, count);
    await fs.writeFile(inFolder("asked.jsonl"), lines.join("\n"));
    const {items} = await tasks.embedded.read(inFolder("asked.jsonl"));

    await using opened = await openModelOnly(flags);
    const {model} = opened;
    const chatWrapper = chatWrapperFor(model, embeddedModelPath);
    const prepared = items.map((item) => prepareItem(item, {model, task: tasks.embedded, way: "letter", chatWrapper}));
    const context = await createEvaluationContext(model, {
        length: Math.max(...prepared.map(longestSequence)), sequences: 8, threads: 1
    });
    const scores = await underArm(context, {name: "hidden", emulation}, () => scoreChoices(context, prepared));
    const file = inFolder("hidden.jsonl");
    await fs.writeFile(file, lines.map((line, index) => JSON.stringify({
        ...JSON.parse(line) as object, answer: "ABCD"[likeliest(scores[index]!.logLikelihoods)]
    })).join("\n"));
    return file;
}

test.serial("a setting that helps is found, confirmed, and its profile used", async (t) => {
    const data = await writeQuestionsOf({pattern: "all", strength: -0.6}, 96);
    const file = inFolder("helps.json");
    const args = ["--data", data, "-o", file, "--patterns", "all,early-layer", "--budget", "1000", "--json"];

    const {code, stdout, stderr} = await runTune(args);
    t.is(code, 0, stderr);
    const {beatsPlain, profile, confirmation, training, search} = JSON.parse(stdout) as Report;
    t.log(JSON.stringify({training, confirmation}));
    t.true(beatsPlain);
    t.is(profile, file);
    t.true(confirmation!.accuracy.tuned > confirmation!.accuracy.plain);
    t.true(confirmation!.logLikelihood.interval[0] > 0);
    t.is(confirmation!.items, 48);
    t.true(search.spent <= search.budget);
    t.deepEqual((await fs.readdir(folder)).filter((name) => name.startsWith("helps")), ["helps.json"]);

    const written = await loadProfile(file);
    t.true(written.options.strength < 0);
    t.like(written.found, {training, confirmation});

    const complete = await runCli(["complete", "a", "-n", "1", "--profile", file, "--json"]);
    t.is(complete.code, 0, complete.stderr);

    const again = await runTune(args);
    t.is(again.code, 2);
    t.regex(again.stderr, /is there already; name another file, or remove it/);
});

test.serial("where no setting beats plain, that is said, and no profile is written", async (t) => {
    // without an analysis before it, the embedded model's answer is a guess
    const {code, stdout, stderr} = await runTune(["-o", inFolder("none.json"), "--limit", "48", "--budget", "300"]);
    t.is(code, 0, stderr);
    t.regex(stdout, /No setting beats plain/);
    t.false((await fs.readdir(folder)).some((name) => name.startsWith("none")));
});

test.serial("a run that was stopped goes on, and comes out as if it had not been", async (t) => {
    const argsFor = (name: string) => ["-o", inFolder(name), "--limit", "40", "--budget", "300", "--json"];
    const whole = await runTune(argsFor("whole.json"));
    t.is(whole.code, 0, whole.stderr);

    const scores = inFolder("parts.json.scores.jsonl");
    const countLines = async () => (await fs.readFile(scores, "utf8").catch(() => "")).split("\n").length;
    let child: ChildProcess | undefined;
    const running = runTune(argsFor("parts.json"), (started) => {
        child = started;
    });
    while (await countLines() < 4)
        await new Promise((resolve) => setTimeout(resolve, 5));
    child!.kill("SIGINT");
    const stopped = await running;
    t.is(stopped.code, 130);
    t.is(stopped.stdout, "");
    t.regex(stopped.stderr, /Stopped; the same command again goes on from here/);

    const other = await runTune([...argsFor("parts.json"), "--seed", "2"]);
    t.is(other.code, 1);
    t.regex(other.stderr, /has scores of another run/);

    const resumed = await runTune(argsFor("parts.json"));
    t.is(resumed.code, 0, resumed.stderr);
    t.regex(resumed.stderr, /Going on with the run/);
    t.deepEqual(JSON.parse(resumed.stdout), JSON.parse(whole.stdout));
});

const refused: Array<[args: string[], message: RegExp]> = [
    [["--budget", "much"], /--budget is "much"; allowed are a number of items, like 5000, and a time/],
    [["--budget", "0"], /--budget is "0"/],
    [["--budget", "20", "--limit", "48"], /--budget: the budget of 20 is too small: with 24 training items it takes \d+/],
    [["--patterns", "early-layer,late"], /--patterns has "late"; allowed are early-layer, all, random, first-token/],
    [["--way", "text"], /--way is "text"; allowed for the task embedded are letter/],
    [["--source-layer", "7", "--limit", "48"], /--source-layer is 7, but must be a whole number from 0 to 6/],
    [["--confirm", "1"], /--confirm is "1"/],
    [["--template", "none"], /--template is "none"/]
];
for (const [args, message] of refused) {
    test.serial(`refused: ${args.join(" ")}`, async (t) => {
        const {code, stdout, stderr} = await runTune(["-o", inFolder("refused.json"), ...args]);
        t.is(code, 2);
        t.is(stdout, "");
        t.regex(stderr, message);
        t.false((await fs.readdir(folder)).some((name) => name.startsWith("refused")));
    });
}

test.serial("refused: too few items, a task without options, no data", async (t) => {
    const few = await runTune(["-o", inFolder("few.json"), "--confirm", "0.01", "--limit", "40"]);
    t.is(few.code, 1);
    t.regex(few.stderr, /there are 40 items to train on and 0 to confirm with, but at least 8 of each are needed/);
    const text = await runCli(["tune", "--task", "text", "-o", inFolder("text.json")]);
    t.is(text.code, 2);
    const mmlu = await runCli(["tune", "--task", "mmlu", "-o", inFolder("mmlu.json")]);
    t.is(mmlu.code, 2);
    t.regex(mmlu.stderr, /--data is missing/);
});
