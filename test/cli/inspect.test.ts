import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {cliPath, runCli} from "../support/cli.js";

const text = "Where people are: Max tower, Alice station. Later Alice museum. The key Max.\nWhere is the key?\nA school\nB station";
const inspect = ["inspect", "--prompt", text, "--threads", "1", "--strength", "0.5"];

let folder: string;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
});
test.after.always(() => fs.rm(folder, {recursive: true}));

type JsonArray = {dtype: string, shape: number[], base64: string};
type Side = {layers: number[], heads: number[], queries: number, entropy: number[][], agreement: number[][], received: JsonArray};
type Report = {
    tokens: Array<{text: string, class: string}>, plain: Side, steered: Side, options: {strength: number},
    rows: {layers: number[], topK: number, plain: {topKeys: JsonArray, topWeights: JsonArray}}
};

test("a summary is printed, with the layers, the heads and the outlier tokens; nothing is written", async (t) => {
    const {code, stdout, stderr} = await runCli(inspect);

    t.is(code, 0, stderr);
    t.is(stderr, "");
    t.regex(stdout, /8 layers × 3 heads, \d+ tokens, strength 0.5/);
    for (const part of ["Over depth", "Entropy of each head", "Outlier tokens", "special"])
        t.true(stdout.includes(part), part);
    t.notRegex(stdout, /NaN|undefined/);
});

test("--json prints measures and weights that a program can read", async (t) => {
    const {code, stdout, stderr} = await runCli([...inspect, "--json", "--layers", "0,1,7"]);
    t.is(code, 0, stderr);
    const {tokens, plain, steered, options, rows} = JSON.parse(stdout) as Report;

    t.is(tokens.slice(1).map((token) => token.text).join(""), text);
    t.deepEqual([plain.layers, plain.queries, options.strength], [[0, 1, 7], tokens.length, 0.5]);
    t.deepEqual([plain.entropy.length, plain.entropy[0]!.length], [3, 3]);
    t.deepEqual(plain.received.shape, [3, 3, tokens.length]);

    t.true(Math.max(...plain.agreement[1]!) > 0.01);
    // the source layer isn't changed, so the next one is given the same and differs by its gain only
    t.deepEqual(steered.entropy[0], plain.entropy[0]);
    const gain = 0.5 * (1 - 1 / 7);
    for (const [head, agreement] of plain.agreement[1]!.entries())
        t.true(Math.abs(steered.agreement[1]![head]! - agreement * (1 + gain)) < 1e-6);

    t.deepEqual(rows.plain.topKeys.shape, [3, 3, tokens.length, rows.topK]);
    const weights = numbersOf(rows.plain.topWeights);
    t.is(weights.length, 9 * tokens.length * rows.topK);
    t.true(weights.every((weight) => weight >= 0 && weight <= 1.0001));
    // the first token sees but itself
    t.true(Math.abs(weights[0]! - 1) < 1e-4);
});

test.serial("--output writes a page, over one of ours but over no other file", async (t) => {
    const output = path.join(folder, "report.html");
    const first = await runCli([...inspect, "--output", output]);
    t.is(first.code, 0, first.stderr);
    t.is(first.stdout, "");
    t.true(first.stderr.includes(`The report is in ${output}`));
    t.true((await fs.readFile(output, "utf8")).includes("<title>Attention of reattend-mini</title>"));

    const again = await runCli([...inspect, "--output", output, "--terminal"]);
    t.is(again.code, 0, again.stderr);
    t.true(again.stdout.includes("Outlier tokens"));

    await fs.writeFile(output, "my own notes");
    const refused = await runCli([...inspect, "--output", output]);
    t.is(refused.code, 1);
    t.true(refused.stderr.includes("is there already, and is no page of reattend's; to overwrite it add --force"), refused.stderr);
    t.is(await fs.readFile(output, "utf8"), "my own notes");

    t.is((await runCli([...inspect, "--output", output, "--force"])).code, 0);
    t.true((await fs.readFile(output, "utf8")).startsWith("<!doctype html>"));
    t.deepEqual(await fs.readdir(folder), ["report.html"]);
});

test("chosen heads are those of the report", async (t) => {
    const {code, stdout, stderr} = await runCli([...inspect, "--heads", "0,2", "--layers", "1,4", "--json"]);
    t.is(code, 0, stderr);
    const {plain, steered} = JSON.parse(stdout) as Record<"plain" | "steered", {layers: number[], heads: number[]}>;
    for (const {layers, heads} of [plain, steered]) {
        t.deepEqual(layers, [1, 4]);
        t.deepEqual(heads, [0, 2]);
    }
});

const failures = {
    "an empty text": [["inspect", ""], 2, "the prompt is empty"],
    "two texts": [["inspect", "x", "--prompt", "y"], 2, "the prompt is given more than once"],
    "a missing file": [["inspect", "--file", "missing.txt"], 1, "cannot read --file missing.txt"],
    "a layer that is not there": [[...inspect, "--layers", "0,8"], 2, "--layers has 8, but must have whole numbers from 0 to 7"],
    "a head that is not there": [[...inspect, "--heads", "3"], 2, "--heads has 3"],
    "two things on stdout": [[...inspect, "--json", "--terminal"], 2, "--json and --terminal"],
    "--force without a file": [[...inspect, "--force"], 2, "--force is about the file of --output"],
    "a folder that is not there": [[...inspect, "--output", "/missing/report.html"], 1, "there is no folder /missing"],
    "no name of a file": [[...inspect, "--output", ""], 2, "--output is empty"],
    "a file for a folder": [[...inspect, "--output", path.join(cliPath, "report.html")], 1, "cli.js is no folder"],
    "a folder for a file": [[...inspect, "--output", os.tmpdir()], 1, "it is a folder"],
    "a text longer than the context": [
        ["inspect", "word ".repeat(200), "--context-size", "64", "--threads", "1"], 1, "but the context has room for"
    ],
    "a bad source layer": [[...inspect, "--source-layer", "7"], 2, "--source-layer is 7"]
} as const;

for (const [title, [args, expected, message]] of Object.entries(failures)) {
    test(`${title} is said in one sentence`, async (t) => {
        const {code, stdout, stderr} = await runCli(args);
        t.is(code, expected, stderr);
        t.is(stdout, "");
        t.true(stderr.includes(message), stderr);
        t.is(stderr.trim().split("\n").length, 1, stderr);
    });
}

test("Ctrl-C leaves no file, and exit code 130", async (t) => {
    const output = path.join(folder, "interrupted.html");
    let interrupted = false;
    const {code, stdout} = await runCli([...inspect, "--output", output, "--debug"], {
        onStderr: (log, child) => {
            if (log.includes("load_tensors"))
                interrupted ||= child.kill("SIGINT");
        }
    });
    t.true(interrupted);
    t.is(code, 130);
    t.is(stdout, "");
    await t.throwsAsync(fs.stat(output));
});

function numbersOf({dtype, base64}: JsonArray): Float32Array {
    if (dtype !== "<f4")
        throw new TypeError(dtype);
    const bytes = Buffer.from(base64, "base64");
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}
