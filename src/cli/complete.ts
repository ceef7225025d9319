import process from "node:process";
import {LlamaCompletion} from "../index.js";
import {tokenizeText} from "../inspect/inspectAttention.js";
import {findDivergence, layOutComparison} from "./comparison.js";
import {exitCode} from "./failure.js";
import {emulationOptions, samplingOptions} from "./flags.js";
import {abortOnInterrupt} from "./interruption.js";
import {openModel, startEmulation} from "./model.js";
import {startProgress} from "./progress.js";
import {checkLength, readPrompt} from "./prompt.js";
import {colorsFor, note, print, printJson, terminalWidth} from "./terminal.js";
import type {LlamaContextSequence} from "../index.js";
import type {EmulationFlags, ModelFlags, SamplingFlags} from "./flags.js";
import type {PromptFlags} from "./prompt.js";

export type CompleteFlags = ModelFlags & EmulationFlags & SamplingFlags & PromptFlags & {
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
    const {model, context} = opened;
    checkLength("the prompt", tokenizeText(model, prompt).length, context);
    const sequence = context.getSequence();

    async function complete(onText?: (text: string, tokens: number) => void): Promise<Completion> {
        await sequence.clearHistory();
        return await generate(sequence, prompt, flags, signal, onText);
    }

    if (flags.compare) {
        startEmulation(context, emulationOptions(flags)).dispose(); // bad options are reported before anything is computed
        await sequence.evaluateWithoutGeneratingNewTokens(context.model.tokenize(prompt)); // so that the first one isn't slower

        using progress = startProgress("plain");
        const show = (name: string) => (_text: string, tokens: number) => {
            progress.text = `${name}: ${tokens} tokens`;
        };
        const plain = await complete(show("plain"));
        using emulation = startEmulation(context, emulationOptions(flags));
        const steered = signal.aborted
            ? undefined
            : await complete(show("steered"));
        progress.stop();
        exitIfInterrupted(signal);

        if (flags.json)
            printJson({
                model: flags.model, prompt, emulation: {...emulation.options, kernel: emulation.report().kernel},
                plain, steered: steered ?? null,
                divergesAt: (steered == null ? undefined : findDivergence(plain.text, steered.text)) ?? null
            });
        else if (steered != null)
            print(layOutComparison(plain, steered, {width: terminalWidth(process.stdout), colors: colorsFor(process.stdout)}));
        else if (plain.text !== "")
            print(plain.text);
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
    exitIfInterrupted(signal);
    if (signal.aborted && tokens === 0)
        return;
    print("");
    if (process.stderr.isTTY)
        note(colorsFor(process.stderr).dim(`${tokens} tokens in ${seconds.toFixed(2)} s, ${tokensPerSecond.toFixed(1)} a second`));
}

async function generate(
    contextSequence: LlamaContextSequence, prompt: string, flags: SamplingFlags, signal: AbortSignal,
    onText?: (text: string, tokens: number) => void
): Promise<Completion> {
    using completion = new LlamaCompletion({contextSequence});
    const start = performance.now();
    let text = ""; // as streamed: node-llama-cpp's response may have fewer spaces, as llama.cpp cleans up a whole text
    let tokens = 0;
    const stopReason = await completion.generateCompletionWithMeta(prompt, {
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
    }).then(({metadata}) => metadata.stopReason, (error: unknown) => {
        if (!signal.aborted) // one that was stopped before its first token is thrown as an error
            throw error;
        return "abort";
    });
    const seconds = (performance.now() - start) / 1000;
    return {text, tokens, seconds, tokensPerSecond: tokens / seconds, stopReason};
}

/** What was generated up to then is on the screen already, so nothing is lost. */
function exitIfInterrupted(signal: AbortSignal): void {
    if (signal.aborted)
        process.exitCode = exitCode.interrupted;
}
