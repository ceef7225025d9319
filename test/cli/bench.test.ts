import {execFile} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {runCli} from "../support/cli.js";

const makeModel = fileURLToPath(new URL("../../bench/make-model.js", import.meta.url));

let folder: string;
let model: string;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    model = path.join(folder, "tiny.gguf");
});

test.after.always(() => fs.rm(folder, {recursive: true}));

const tinyShape = ["--layers", "3", "--heads", "4", "--kv-heads", "2", "--head-size", "32", "--ffn", "64", "--vocabulary", "400"];

test.serial("bench:model writes a model, prints its path last, and leaves it alone the next time", async (t) => {
    const args = [makeModel, ...tinyShape, "--context", "600", "--output", model];
    const first = await promisify(execFile)(process.execPath, args);
    t.is(first.stdout, `${model}\n`);

    const keys = /512 tokens: mean ([\d.]+)/.exec(first.stderr)?.[1];
    t.true(Number(keys) > 10 && Number(keys) < 30, first.stderr);

    const {mtimeMs} = await fs.stat(model);
    const second = await promisify(execFile)(process.execPath, args);
    t.is(second.stdout, `${model}\n`);
    t.is((await fs.stat(model)).mtimeMs, mtimeMs);
    t.deepEqual(await fs.readdir(folder), ["tiny.gguf"]);
});

for (const kernel of ["auto", "dense"]) {
    test.serial(`bench --json has speeds, ratios and memory, kernel ${kernel}`, async (t) => {
        const {code, stdout, stderr} = await runCli([
            "bench", "--json", "--model", model, "--threads", "1", "--kernel", kernel,
            "--rounds", "2", "--decode-tokens", "4", "--depths", "0,40", "--prefill", "64,100"
        ]);
        t.is(code, 0, stderr);

        type Speeds = {on: number, off: number, ratio: number};
        const result = JSON.parse(stdout) as {
            decode: Array<{depth: number} & Speeds>,
            prefill: Array<{tokens: number} & Speeds>,
            kernel: string,
            extraMemoryBytes: number
        };
        t.deepEqual(result.decode.map(({depth}) => depth), [0, 40]);
        t.deepEqual(result.prefill.map(({tokens}) => tokens), [64, 100]);
        for (const {on, off, ratio} of [...result.decode, ...result.prefill]) {
            t.true(on > 0 && off > 0);
            t.is(ratio, on / off);
        }
        t.is(result.kernel, kernel === "auto" ? "fused" : "dense");
        t.true(result.extraMemoryBytes > 0);
    });
}

test.serial("bench prints a table", async (t) => {
    const {code, stdout, stderr} = await runCli([
        "bench", "--clock", "cpu", "--model", model, "--threads", "1", "--rounds", "1", "--decode-tokens", "2", "--depths", "0", "--prefill", "32",
        "--cache-type-k", "q8_0", "--cache-type-v", "q4_0"
    ]);
    t.is(code, 0, stderr);
    t.is(stderr, "");
    for (const label of ["prefill of 32", "decode at 0", "on ÷ off", "extra memory", "KV cache q8_0 and q4_0"])
        t.true(stdout.includes(label), stdout);
});

test.serial("the model of random weights writes text", async (t) => {
    const {code, stdout, stderr} = await runCli([
        "complete", "hello w1", "--json", "--model", model, "--threads", "1", "--max-tokens", "4"
    ]);
    t.is(code, 0, stderr);
    t.true((JSON.parse(stdout) as {tokens: number}).tokens > 0);
});
