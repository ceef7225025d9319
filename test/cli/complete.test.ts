import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {runCli} from "../support/cli.js";

const short = ["--threads", "1", "--max-tokens", "8"];

type Completion = {text: string, tokens: number, seconds: number, tokensPerSecond: number, stopReason: string};

test("a text is continued on stdout, from an argument, --prompt, --file and standard input alike", async (t) => {
    const prompt = "Analysis: Emma is in the";
    const file = path.join(await fs.mkdtemp(path.join(os.tmpdir(), "reattend-")), "prompt.txt");
    await fs.writeFile(file, prompt);
    t.teardown(() => fs.rm(path.dirname(file), {recursive: true}));

    const [first, ...others] = await Promise.all([
        runCli(["complete", prompt, ...short]),
        runCli(["complete", "--prompt", prompt, ...short]),
        runCli(["complete", "--file", file, ...short]),
        runCli(["complete", ...short], {input: prompt})
    ]);
    t.is(first.code, 0, first.stderr);
    t.not(first.stdout.trim(), "");
    t.is(first.stderr, "");
    for (const other of others)
        t.deepEqual(other, first);
});

test("a prompt's file may begin with a byte order mark, and must be in UTF-8", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    const [marked, latin1] = [path.join(folder, "marked.txt"), path.join(folder, "latin1.txt")];
    await fs.writeFile(marked, "\ufeffEmma is");
    await fs.writeFile(latin1, Buffer.from("\xe9", "latin1"));

    const read = await runCli(["complete", "--json", "--file", marked, ...short]);
    t.is((JSON.parse(read.stdout) as {prompt: string}).prompt, "Emma is");
    const piped = await runCli(["complete", "--json", ...short], {input: "\ufeffEmma is"});
    t.is((JSON.parse(piped.stdout) as {prompt: string}).prompt, "Emma is");
    t.like(await runCli(["complete", "--file", latin1, ...short]), {
        code: 1, stderr: `reattend: cannot read --file ${latin1}: it is not text in UTF-8\n`
    });
});

test("--json prints one object", async (t) => {
    const {code, stdout, stderr} = await runCli(["complete", "Emma is", "--json", "--strength", "0.5", ...short]);
    t.is(code, 0, stderr);

    const {prompt, emulation, text, tokens, seconds, stopReason} = JSON.parse(stdout) as Completion & {
        prompt: string, emulation: {strength: number, kernel: string}
    };
    t.is(prompt, "Emma is");
    t.is(emulation.strength, 0.5);
    t.true(["fused", "dense"].includes(emulation.kernel));
    t.is(typeof text, "string");
    t.true(tokens >= 1 && tokens <= 8);
    t.true(seconds > 0);
    t.true(["maxTokens", "eogToken"].includes(stopReason));
});

test("the same seed gives the same text, at any temperature", async (t) => {
    const args = ["complete", "Emma is", "--temperature", "2", "--seed", "7", ...short];
    const [first, second] = await Promise.all([runCli(args), runCli(args)]);
    t.is(first.code, 0, first.stderr);
    t.is(second.stdout, first.stdout);
});

test("--compare shows both texts, and where they part", async (t) => {
    const args = ["complete", "Emma is", "--compare", ...short];
    const [asText, asJson, unsteered] = await Promise.all([
        runCli([...args, "--strength", "20"]),
        runCli([...args, "--strength", "20", "--json"]),
        runCli([...args, "--strength", "0", "--json"])
    ]);
    t.is(asText.code, 0, asText.stderr);
    const {plain, steered, divergesAt} = JSON.parse(asJson.stdout) as {plain: Completion, steered: Completion, divergesAt: number};
    t.true(asText.stdout.includes("plain") && asText.stdout.includes("steered"));
    t.true(asText.stdout.includes("»"));
    t.is(plain.text.slice(0, divergesAt), steered.text.slice(0, divergesAt));
    t.not(plain.text, steered.text);

    const same = JSON.parse(unsteered.stdout) as {plain: Completion, steered: Completion, divergesAt: null};
    t.is(same.steered.text, same.plain.text);
    t.is(same.divergesAt, null);
});

test("Ctrl-C ends it with exit code 130, and what was written stays", async (t) => {
    let interrupted = false;
    const {code, stdout, stderr} = await runCli(
        ["complete", "Emma is", "--threads", "1", "--max-tokens", "100000", "--temperature", "3", "--seed", "1"],
        {
            onOutput: (_output, child) => {
                interrupted ||= child.kill("SIGINT");
            }
        }
    );
    t.is(code, 130, stderr);
    t.not(stdout, "");
    t.is(stderr, "");
});

test("a prompt that the context has no room for is refused, not cut", async (t) => {
    const run = async (words: number) => await runCli(["complete", "w ".repeat(words), ...short, "--context-size", "256"]);
    const {code, stdout, stderr} = await run(200);
    t.is(code, 1);
    t.is(stdout, "");
    t.regex(stderr, /^reattend: the prompt has \d+ tokens, but a context of 256 has room for 231 beside what follows; .*\n$/);
    t.is((await run(40)).code, 0);
});
