import test from "ava";
import {runCli, runInTerminal, testOnTerminal} from "../support/cli.js";

const flags = ["--threads", "1", "--max-tokens", "8"];

type Turn = {turn: number, prompt: string, answer: string, tokens: number, strength: number};

function readTurns(stdout: string): Turn[] {
    return stdout.trim().split("\n").map((line) => JSON.parse(line) as Turn);
}

test("each line of a pipe is a turn of one conversation, streamed as it is or, with --json, an object per line", async (t) => {
    const input = "Hello\n\none\\\ntwo\n/reset\nHello\n";
    const [text, json] = await Promise.all([
        runCli(["chat", ...flags], {input}),
        runCli(["chat", "--json", ...flags], {input})
    ]);
    t.is(text.code, 0, text.stderr);
    t.is(json.code, 0, json.stderr);

    const turns = readTurns(json.stdout);
    t.like(turns, [
        {turn: 1, prompt: "Hello", strength: 0.2},
        {turn: 2, prompt: "one\ntwo"}, // a line that ends in a backslash goes on in the next one
        {turn: 3, prompt: "Hello", answer: turns[0]!.answer} // after /reset, the same question gets the same answer
    ]);
    t.is(text.stdout, turns.map(({answer}) => `${answer}\n`).join(""));
});

test("a turn that the context has no room for is an error, as node-llama-cpp would leave it out without a word", async (t) => {
    const {code, stdout, stderr} = await runCli(["chat", "--context-size", "256", ...flags], {input: `${"word ".repeat(300)}\nHello\n`});
    t.is(code, 1, stderr);
    t.is(stdout, "");
    t.regex(stderr, /^reattend: that, with the system prompt, has \d+ tokens, but a context of 256 has room for 231 beside .*\n$/);
});

test("what starts with / is a command, and is answered on stderr", async (t) => {
    const {code, stdout, stderr} = await runCli(["chat", "--json", ...flags], {
        input: "/strength 0.5\nHello\n/plain\nHello\n/strength lots\n/bogus\n/help\n/exit\nnever read\n"
    });
    t.is(code, 0, stderr);
    t.deepEqual(readTurns(stdout).map(({strength}) => strength), [0.5, 0]);
    for (const message of ["The strength is 0.5.", 'the strength is "lots"', "There is no /bogus", "/strength <number>"])
        t.true(stderr.includes(message), message);
});

test("after /reset, and after another strength, nothing is left of what was evaluated before", async (t) => {
    // in the state of this sequence, so much steering changes what the plain model answers next
    const steered = ["chat", "--json", "--threads", "1", "--max-tokens", "40", "--strength", "30"];
    const plain = ["chat", "--json", "--threads", "1", "--max-tokens", "40", "--strength", "0"];
    const question = [
        "Pets: Eve mouse, Ruth dog. Food: mouse seeds, dog leaves. But Ruth rice. What does Ruth eat?",
        "A leaves", "B grass", "C seeds", "D rice"
    ].join("\\\n");
    const [reset, fresh, changed, alwaysPlain] = await Promise.all([
        runCli(steered, {input: `${question}\n/reset\n/plain\n${question}\n`}),
        runCli(plain, {input: `${question}\n`}),
        runCli([...steered, "--max-tokens", "1"], {input: "Hello\n/plain\nAnalysis\n"}),
        runCli([...plain, "--max-tokens", "1"], {input: "Hello\nAnalysis\n"})
    ]);
    t.is(readTurns(reset.stdout)[1]!.answer, readTurns(fresh.stdout)[0]!.answer);

    const [first, second] = readTurns(alwaysPlain.stdout);
    t.like(readTurns(changed.stdout), [{answer: first!.answer}, {answer: second!.answer}]);
});

test("Ctrl-C stops the running answer, a second one leaves", async (t) => {
    let signals = 0;
    const {code, stdout, stderr} = await runCli(
        ["chat", "--threads", "1", "--max-tokens", "100000", "--temperature", "3", "--seed", "1"],
        {
            input: "Hello\n",
            onOutput: (output, child) => {
                // the first one as soon as the answer has begun, the second once its line is ended
                if (signals === 0 || (signals === 1 && output.endsWith("\n"))) {
                    signals++;
                    child.kill("SIGINT");
                }
            }
        }
    );
    t.is(code, 130, stderr);
    t.not(stdout, "");
});

testOnTerminal("on a terminal there is a prompt, and /exit leaves", async (t) => {
    const {code, stdout} = await runInTerminal(["chat", ...flags], {onOutput: answerPrompts(["Hello\r", "/exit\r"])});
    t.is(code, 0, stdout);
    t.true(stdout.includes("/help lists what can be typed"), stdout);
    t.true(stdout.includes("> \x1b[3GHello"), stdout);
    t.false(stdout.includes("\x1b[36m"), "there are colours in spite of NO_COLOR");
});

testOnTerminal("on a terminal the conversation goes on after a turn that the context has no room for", async (t) => {
    const {code, stdout} = await runInTerminal(
        ["chat", "--context-size", "256", ...flags], {onOutput: answerPrompts([`${"word ".repeat(300)}\r`, "Hello\r", "/exit\r"])}
    );
    t.is(code, 0, stdout);
    t.regex(stdout, /that, with the system prompt, has \d+ tokens, but a context of 256 has room for\s+231 [^]*> \S*Hello\s+\w/);
});

testOnTerminal("on a terminal, Ctrl-C drops a line that is being typed, and leaves at an empty prompt", async (t) => {
    const {code, stdout} = await runInTerminal(["chat", ...flags], {onOutput: answerPrompts(["half a line\x03\x03"])});
    t.is(code, 130, stdout);
});

/** Types the next text each time another prompt is shown. */
function answerPrompts(texts: string[]) {
    let typed = 0;
    return (output: string, child: {stdin: {write(text: string): void} | null}) => {
        const prompts = output.split("\x1b[3G").length - 1; // readline puts the cursor there after "> "
        while (typed < Math.min(prompts, texts.length))
            child.stdin?.write(texts[typed++]!);
    };
}
