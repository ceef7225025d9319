import process from "node:process";
import readline from "node:readline";
import {LlamaChatSession} from "../index.js";
import {exitCode, Failure} from "./failure.js";
import {emulationOptions, parseNumber, samplingOptions} from "./flags.js";
import {chatWrapperFor, openModel, startEmulation} from "./model.js";
import {checkLength} from "./prompt.js";
import {colorsFor, note, print} from "./terminal.js";
import type {AttentionEmulation, LlamaContextSequence} from "../index.js";
import type {EmulationFlags, ModelFlags, SamplingFlags} from "./flags.js";

export type ChatFlags = ModelFlags & EmulationFlags & SamplingFlags & {
    system?: string,
    json?: boolean
};

const help = `Type to talk. What else can be typed:
  /strength <number>  steer with another strength from now on; the conversation so far is read again with it
  /plain              the same as /strength 0: the model as it is
  /reset              forget the conversation
  /help               this list
  /exit               leave
A line that ends in \\ goes on in the next one.
Ctrl-C stops an answer; at an empty prompt it leaves.`;

export async function runChat(flags: ChatFlags): Promise<void> {
    await using opened = await openModel(flags);
    using emulation = startEmulation(opened.context, emulationOptions(flags));
    const sequence = opened.context.getSequence();
    const session = new LlamaChatSession({
        contextSequence: sequence,
        chatWrapper: chatWrapperFor(opened.model, flags.model),
        ...(flags.system == null ? {} : {systemPrompt: flags.system})
    });

    using input = new TurnReader();
    if (process.stdin.isTTY)
        note(`${opened.model.filename ?? flags.model}, strength ${emulation.strength}. /help lists what can be typed.`);

    let turn = 0;
    for (let line = await input.next(); line != null; line = await input.next()) {
        let text = line;
        while (text.endsWith("\\"))
            text = `${text.slice(0, -1)}\n${await input.next() ?? ""}`;
        text = text.trim();
        if (text === "")
            continue;
        if (text === "/exit")
            return;
        if (text.startsWith("/")) {
            await runSlashCommand(text, session, sequence, emulation);
            continue;
        }

        try {
            checkTurn(text, flags.system, session);
        } catch (error) {
            if (!process.stdin.isTTY || !(error instanceof Failure))
                throw error;
            note(error.message);
            continue;
        }

        const start = performance.now();
        let answer = ""; // as streamed: node-llama-cpp's responseText may have fewer spaces, as llama.cpp cleans up a whole text
        let tokens = 0;
        const signal = input.startAnswer();
        const {stopReason} = await session.promptWithMeta(text, {
            ...samplingOptions(flags),
            signal,
            stopOnAbortSignal: true,
            onToken: (chunk) => {
                tokens += chunk.length;
            },
            onTextChunk: (chunk) => {
                answer += chunk;
                if (!flags.json)
                    process.stdout.write(chunk);
            }
        }).catch((error: unknown) => {
            if (!signal.aborted) // one that was stopped before its first token is thrown as an error
                throw error;
            return {stopReason: "abort"};
        });
        input.endAnswer();

        turn++;
        const seconds = (performance.now() - start) / 1000;
        if (flags.json)
            print(JSON.stringify({turn, prompt: text, answer, tokens, seconds, strength: emulation.strength, stopReason}));
        else
            print("");
        if (process.stdin.isTTY && stopReason === "abort")
            note(colorsFor(process.stderr).dim("(stopped)"));
    }

    if (process.stdin.isTTY)
        note(""); // what comes next on the terminal starts on a line of its own
    if (input.interrupted)
        process.exitCode = exitCode.interrupted;
}

/** Without the turns before it, which node-llama-cpp leaves out as it needs to. */
function checkTurn(text: string, systemPrompt: string | undefined, {chatWrapper, context, model}: LlamaChatSession): void {
    const {contextText} = chatWrapper.generateContextState({
        chatHistory: [...chatWrapper.generateInitialChatHistory({systemPrompt}), {type: "user", text}, {type: "model", response: []}]
    });
    checkLength("that, with the system prompt,", contextText.tokenize(model.tokenizer).length, context);
}

async function runSlashCommand(
    text: string, session: LlamaChatSession, sequence: LlamaContextSequence, emulation: AttentionEmulation
): Promise<void> {
    // What was evaluated keeps the strength that it was evaluated with, in the sequence's state, so it is evaluated again.
    const changeStrength = async (strength: number) => {
        const isOther = strength !== emulation.strength;
        emulation.strength = strength;
        if (isOther)
            await sequence.clearHistory();
    };

    const [command, argument = ""] = text.split(/\s+/);
    switch (command) {
        case "/help":
            note(help);
            break;
        case "/reset":
            session.resetChatHistory();
            await sequence.clearHistory();
            note("The conversation is forgotten.");
            break;
        case "/plain":
            await changeStrength(0);
            note("The strength is 0: the model as it is.");
            break;
        case "/strength":
            try {
                await changeStrength(parseNumber("the strength", argument, {min: -1}));
                note(`The strength is ${emulation.strength}.`);
            } catch (error) {
                note((error as Error).message);
            }
            break;
        default:
            note(`There is no ${command}; /help lists what there is.`);
    }
}

/**
 * Lines of standard input, one at a time, and Ctrl-C: while an answer is written it aborts that answer's signal; at an empty
 * prompt it ends the input.
 */
class TurnReader {
    interrupted = false;

    private readonly interface: readline.Interface;
    private readonly lines: string[] = [];
    private waiting: ((line: string | undefined) => void) | undefined;
    private closed = false;
    private answer: AbortController | undefined;

    constructor() {
        this.interface = readline.createInterface({
            input: process.stdin,
            output: process.stdin.isTTY ? process.stderr : undefined,
            prompt: "> "
        });
        this.interface.on("line", (line) => {
            this.lines.push(line);
            this.deliver();
        });
        this.interface.on("close", () => {
            this.closed = true;
            this.deliver();
        });
        // on a terminal readline sees Ctrl-C itself, elsewhere it comes as a signal
        this.interface.on("SIGINT", this.interrupt);
        process.on("SIGINT", this.interrupt);
    }

    /** The next line, or `undefined` at the end. */
    next(): Promise<string | undefined> {
        return new Promise((resolve) => {
            this.waiting = resolve;
            if (process.stdin.isTTY && !this.closed && this.lines.length === 0)
                this.interface.prompt();
            this.deliver();
        });
    }

    startAnswer(): AbortSignal {
        this.answer = new AbortController();
        return this.answer.signal;
    }

    endAnswer(): void {
        this.answer = undefined;
    }

    [Symbol.dispose](): void {
        process.off("SIGINT", this.interrupt);
        this.interface.close();
    }

    private readonly interrupt = () => {
        if (this.answer?.signal.aborted === false) {
            this.answer.abort();
        } else if (this.interface.line !== "") {
            // as in a shell: the line is dropped
            this.interface.write(null, {ctrl: true, name: "e"});
            this.interface.write(null, {ctrl: true, name: "u"});
        } else {
            this.interrupted = true;
            this.lines.length = 0;
            this.interface.close();
        }
    };

    private deliver(): void {
        if (this.waiting == null || (this.lines.length === 0 && !this.closed))
            return;

        const resolve = this.waiting;
        this.waiting = undefined;
        resolve(this.lines.shift());
    }
}
