import fs from "node:fs/promises";
import process from "node:process";
import {text as readAll} from "node:stream/consumers";
import {LlamaCompletion} from "../index.js";
import {findDivergence, layOutComparison} from "./comparison.js";
import {exitCode, Failure, UsageError} from "./failure.js";
import {emulationOptions, samplingOptions} from "./flags.js";
import {abortOnInterrupt} from "./interruption.js";
import {openModel, startEmulation} from "./model.js";
import {startProgress} from "./progress.js";
import {colorsFor, note, print, printJson, terminalWidth} from "./terminal.js";
import type {LlamaContextSequence} from "../index.js";
import type {EmulationFlags, ModelFlags, SamplingFlags} from "./flags.js";

export type CompleteFlags = ModelFlags & EmulationFlags & SamplingFlags & {
    prompt?: string,
    file?: string,
    compare?: boolean,
    json?: boolean
};

export type Completion = {
    text: string,
    tokens: number,
    /** reading the prompt included */
    seconds: number,
    tokensPerSecond: number,
    stopReason: string
};

export async function runComplete(promptArgument: string | undefined, flags: CompleteFlags): Promise<void> {
    const prompt = await readPrompt(promptArgument, flags);
    const signal = abortOnInterrupt();
    await using opened = await openModel(flags);
    const {context} = opened;
    const sequence = context.getSequence();

    async function complete(onText?: (text: string, tokens: number) => void): Promise<Completion> {
        await sequence.clearHistory();
        return await generate(sequence, prompt, flags, signal, onText);
    }

    if (flags.compare) {
        await sequence.evaluateWithoutGeneratingNewTokens(context.model.tokenize(prompt)); // so that the first one isn't slower

        const progress = startProgress("plain");
        const show = (name: string) => (_text: string, tokens: number) => {
            progress.text = `${name}: ${tokens} tokens`;
        };
        const plain = await complete(show("plain"));
        using emulation = startEmulation(context, emulationOptions(flags));
        const steered = await complete(show("steered"));
        progress.stop();
        exitIfInterrupted(signal);

        if (flags.json)
            printJson({
                model: flags.model, prompt, emulation: {...emulation.options, kernel: emulation.report().kernel},
                plain, steered, divergesAt: findDivergence(plain.text, steered.text) ?? null
            });
        else
            print(layOutComparison(plain, steered, {width: terminalWidth(process.stdout), colors: colorsFor(process.stdout)}));
        return;
    }

    using emulation = startEmulation(context, emulationOptions(flags));
    if (flags.json) {
        const completion = await complete();
        exitIfInterrupted(signal);
        printJson({
            model: flags.model, prompt, emulation: {...emulation.options, kernel: emulation.report().kernel}, ...completion
        });
        return;
    }

    const {tokens, seconds, tokensPerSecond} = await complete((text) => process.stdout.write(text));
    print("");
    if (process.stderr.isTTY)
        note(colorsFor(process.stderr).dim(`${tokens} tokens in ${seconds.toFixed(2)} s, ${tokensPerSecond.toFixed(1)} a second`));
    exitIfInterrupted(signal);
}

async function generate(
    contextSequence: LlamaContextSequence, prompt: string, flags: SamplingFlags, signal: AbortSignal,
    onText?: (text: string, tokens: number) => void
): Promise<Completion> {
    const completion = new LlamaCompletion({contextSequence});
    const start = performance.now();
    let text = ""; // as streamed: node-llama-cpp's response may have fewer spaces, as llama.cpp cleans up a whole text
    let tokens = 0;
    const {metadata} = await completion.generateCompletionWithMeta(prompt, {
        ...samplingOptions(flags),
        signal,
        stopOnAbortSignal: true,
        onToken: (chunk) => {
            tokens += chunk.length;
        },
        onTextChunk: (chunk) => {
            text += chunk;
            onText?.(chunk, tokens);
        }
    });
    const seconds = (performance.now() - start) / 1000;
    completion.dispose();
    return {text, tokens, seconds, tokensPerSecond: tokens / seconds, stopReason: metadata.stopReason};
}

/** What was generated up to then is on the screen already, so nothing is lost. */
function exitIfInterrupted(signal: AbortSignal): void {
    if (signal.aborted)
        process.exitCode = exitCode.interrupted;
}

async function readPrompt(argument: string | undefined, {prompt, file}: CompleteFlags): Promise<string> {
    const given = [argument, prompt, file].filter((source) => source != null);
    if (given.length > 1)
        throw new UsageError("the prompt is given more than once; allowed is one of: an argument, --prompt, --file, standard input");
    if (given.length === 0 && process.stdin.isTTY)
        throw new UsageError("there is no prompt; give it as an argument, with --prompt or --file, or on standard input");

    const text = argument ?? prompt ?? (file != null
        ? await readPromptFile(file)
        : await readAll(process.stdin));
    if (text === "")
        throw new UsageError("the prompt is empty");
    return text;
}

async function readPromptFile(file: string): Promise<string> {
    try {
        return await fs.readFile(file, "utf8");
    } catch (error) {
        throw new Failure(`cannot read --file ${file}: ${(error as Error).message}`, {cause: error});
    }
}
