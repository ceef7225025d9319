// The parts of bench:compare that need nothing to be compiled, on a tiny model.
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import test from "ava";
import {runProcess} from "../support/cli.js";
import {noStock} from "../support/stock.js";
import type {CliResult} from "../support/cli.js";

type Row = {
    part: string,
    what: string,
    other: {name: string, value: number},
    plain?: {value: number, ratio: number},
    steered?: {value: number, ratio: number}
};

let folder: string;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
});

test.after.always(() => fs.rm(folder, {recursive: true}));

test("bench:compare --quick has rows for each part, as JSON and as Markdown, and says what it leaves out", async (t) => {
    const model = path.join(folder, "tiny.gguf");
    const markdown = path.join(folder, "table.md");
    await runBenchScript("make-model.js", [
        "--layers", "3", "--heads", "4", "--kv-heads", "2", "--head-size", "32", "--ffn", "64", "--vocabulary", "400", "--context", "600",
        "--output", model
    ]);
    const {code, stdout, stderr} = await runBenchScript("compare.js", [
        "--quick", "--no-build", "--only", "off,node,parallel,startup", "--threads", "1", "--model", model, "--json", "--markdown", markdown
    ]);
    t.is(code, 0, stderr);

    const {rows, leftOut} = JSON.parse(stdout) as {rows: Row[], leftOut: Record<string, string>};
    t.regex(leftOut.off ?? "", /--no-build/);
    t.regex(leftOut.parallel ?? "", /llama-batched-bench/);
    t.deepEqual(new Set(rows.map(({part}) => part)), new Set(noStock == null ? ["node", "parallel", "startup"] : ["node", "startup"]));
    t.deepEqual(
        rows.filter(({other}) => other.name === "dense form").map(({what}) => what),
        ["prefill of 128", "decode at 0", "decode at 256"]
    );
    for (const {what, other, plain, steered} of rows) {
        for (const cell of [plain, steered])
            t.true(other.value > 0 && (cell == null || (cell.value > 0 && cell.ratio > 0)), what);
        t.truthy(plain ?? steered, what);
    }

    const table = await fs.readFile(markdown, "utf8");
    t.is(table.split("\n").filter((line) => line.startsWith("| ")).length, rows.length + 2, table);
    for (const secret of [folder, os.homedir()])
        t.false(table.includes(secret), secret);
});

test("bench:compare tells which parts there are", async (t) => {
    const {code, stderr} = await runBenchScript("compare.js", ["--only", "everything"]);
    t.is(code, 2);
    t.regex(stderr, /off, instructions, passes, node, parallel, startup, torch/);
});

test("bench:compare tells which types of cache there are", async (t) => {
    const {code, stderr} = await runBenchScript("compare.js", ["--cache", "q8_0,q8"]);
    t.is(code, 2);
    t.regex(stderr, /'q8_0,q8' is invalid\. Allowed are f16, .*q8_0.*q4_0/);
});

test("bench:compare says which model can't be loaded", async (t) => {
    const missing = path.join(folder, "missing.gguf");
    const {code, stderr} = await runBenchScript("compare.js", ["--model", missing]);
    t.is(code, 1);
    t.regex(stderr, /^bench:compare: .*missing\.gguf can't be loaded: .+\n$/);
});

async function runBenchScript(name: string, args: readonly string[]): Promise<CliResult> {
    return await runProcess(process.execPath, [fileURLToPath(new URL(`../../bench/${name}`, import.meta.url)), ...args]);
}
