// What only shows on a terminal: errors and Ctrl-C while a line of progress is on it.
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {runCli, runInTerminal, testOnTerminal} from "../support/cli.js";

const failures = {
    "a GPU without a build": {args: ["complete", "--gpu", "metal", "hi"], code: 1, message: "No native build of reattend fits"},
    "a bad flag of a comparison": {args: ["complete", "--compare", "--source-layer", "99", "hi"], code: 2, message: "--source-layer is 99"},
    "a bad flag of the demo": {args: ["demo", "--source-layer", "99"], code: 2, message: "--source-layer is 99"},
    "a bad flag of a benchmark": {args: ["bench", "--source-layer", "99"], code: 2, message: "--source-layer is 99"},
    "a bad flag of an inspection": {args: ["inspect", "--layers", "99", "hi"], code: 2, message: "--layers"}
};
for (const [title, {args, code, message}] of Object.entries(failures)) {
    testOnTerminal(`${title} ends the command on a terminal, too`, async (t) => {
        const result = await runInTerminal([...args, "--threads", "1"]);
        t.is(result.code, code, result.stdout);
        t.true(result.stdout.includes(message), result.stdout);
        t.false(result.stdout.includes("plain: "), "something was generated");
    });
}

testOnTerminal("tables of an evaluation fit a terminal of 80 columns, and its sentences are broken between words", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-test-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    const {code, stdout} = await runInTerminal(
        ["evaluate", "--task", "embedded", "--limit", "2", "--threads", "1", "--output", path.join(folder, "run")]
    );
    t.is(code, 0, stdout);
    const lines = stdout.split(/\r?\n/);
    t.true(lines.some((line) => line.startsWith("│") && line.includes("difference")), stdout);
    t.deepEqual(lines.filter((line) => line.startsWith("│") && line.length > 80), []);
    t.deepEqual(lines.filter((line) => /^ \S/.test(line)), [], "lines begin with the space at which they were broken");
});

const endless = ["complete", "Emma is", "--compare", "--threads", "1", "--max-tokens", "100000", "--temperature", "3", "--seed", "1"];

/** Types Ctrl-C once the plain model has written something. */
function interruptPlainArm() {
    let typed = false;
    return (output: string, child: {stdin: {write(text: string): void} | null}) => {
        if (!typed && /plain: [1-9]/.test(output)) {
            typed = true;
            child.stdin?.write("\x03");
        }
    };
}

testOnTerminal("Ctrl-C while the plain model writes ends a comparison with exit code 130, and what was written stays", async (t) => {
    const asText = await runInTerminal(endless, {onOutput: interruptPlainArm()});
    t.is(asText.code, 130, asText.stdout);
    const [, plainText] = /\^C([^]*)$/.exec(asText.stdout)!;
    t.regex(plainText!, /\w{3}/);
    t.false(/aborted|steered/.test(plainText!), plainText);

    const asJson = await runInTerminal([...endless, "--json"], {onOutput: interruptPlainArm()});
    t.is(asJson.code, 130, asJson.stdout);
    const {plain, steered} = JSON.parse(/\{\r?\n[^]*\n\}/.exec(asJson.stdout)![0]) as {
        plain: {tokens: number, stopReason: string}, steered: null
    };
    t.is(plain.stopReason, "abort");
    t.true(plain.tokens > 0);
    t.is(steered, null);
});

const commands = [
    ["complete", "hi"], ["complete", "hi", "--compare"], ["bench"], ["inspect", "hi"], ["demo"]
];
for (const command of commands) {
    test(`${command.join(" ")}: Ctrl-C before the first token ends with exit code 130, and says nothing`, async (t) => {
        let interrupted = false;
        const {code, stdout, stderr} = await runCli([...command, "--threads", "1", "--debug"], {
            // llama.cpp's first message comes while the model is loaded
            onStderr: (_output, child) => {
                interrupted ||= child.kill("SIGINT");
            }
        });
        t.is(code, 130, stderr);
        t.is(stdout, "");
        t.false(/AbortError|reattend: /.test(stderr), stderr);
    });
}
