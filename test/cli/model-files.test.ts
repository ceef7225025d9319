import {execFileSync} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import test from "ava";
import {embeddedModelPath} from "#dist/cli/flags.js";
import {runCli} from "../support/cli.js";

let folder: string;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
});

test.after.always(() => fs.rm(folder, {recursive: true}));

async function fileOf(name: string, content: Buffer | string): Promise<string> {
    const file = path.join(folder, name);
    await fs.writeFile(file, content);
    return file;
}

async function startOfModel(share: number): Promise<Buffer> {
    const model = await fs.readFile(embeddedModelPath);
    return model.subarray(0, Math.floor(model.length * share));
}

const badFiles: Record<string, [message: string, makeFile: () => Promise<string>]> = {
    "a missing file": ["there is no such file", () => Promise.resolve(path.join(folder, "missing.gguf"))],
    "a folder": ["it is a folder", () => Promise.resolve(folder)],
    ...process.platform === "win32" ? {} : {
        "a pipe": ["it is no file but a device, a pipe or a socket", () => {
            execFileSync("mkfifo", [path.join(folder, "pipe.gguf")]);
            return Promise.resolve(path.join(folder, "pipe.gguf"));
        }]
    },
    "an empty file": ["is not a GGUF file", () => fileOf("empty.gguf", "")],
    "garbage": ["is not a GGUF file", () => fileOf("garbage.gguf", "no model".repeat(1000))],
    "a GGUF file cut off in its header": ["is truncated or damaged", async () => fileOf("header.gguf", await startOfModel(0.001))],
    "a GGUF file cut off in its weights": ["is truncated or damaged", async () => fileOf("weights.gguf", await startOfModel(0.9))],
    "nothing but GGUF's magic number": ["is truncated or damaged", () => fileOf("magic.gguf", "GGUF")]
};

for (const [title, [message, makeFile]] of Object.entries(badFiles)) {
    test(`${title} instead of a model: exit code 1 and one sentence`, async (t) => {
        const file = await makeFile();
        const {code, stdout, stderr} = await runCli(["complete", "x", "--model", file, "--threads", "1"]);

        t.is(code, 1, stderr);
        t.is(stdout, "");
        t.true(stderr.includes(file) && stderr.includes(message), stderr);
        t.is(stderr.trimEnd().split("\n").length, 1, stderr);
    });
}

test("--debug shows where an error comes from", async (t) => {
    const {code, stderr} = await runCli(["complete", "x", "--debug", "--model", path.join(folder, "missing.gguf")]);
    t.is(code, 1);
    t.true(stderr.includes("    at "), stderr);
});
