import fs from "node:fs/promises";
import process from "node:process";
import {buffer as readAll} from "node:stream/consumers";
import {decodeText, whyUnreadable} from "../textFile.js";
import {Failure, UsageError} from "./failure.js";
import type {LlamaContext} from "../index.js";

export type PromptFlags = {
    prompt?: string,
    file?: string
};

/** The text that a command is given: as an argument, with a flag, in a file or on standard input. */
export async function readPrompt(argument: string | undefined, {prompt, file}: PromptFlags): Promise<string> {
    const given = [argument, prompt, file].filter((source) => source != null);
    if (given.length > 1)
        throw new UsageError("the prompt is given more than once; allowed is one of: an argument, --prompt, --file, standard input");
    if (given.length === 0 && process.stdin.isTTY)
        throw new UsageError("there is no prompt; give it as an argument, with --prompt or --file, or on standard input");

    const text = argument ?? prompt ?? await readText(file);
    if (text === "")
        throw new UsageError("the prompt is empty");
    return text;
}

/** The text of a file, or of standard input. */
async function readText(file: string | undefined): Promise<string> {
    try {
        return decodeText(file == null
            ? await readAll(process.stdin)
            : await fs.readFile(file));
    } catch (error) {
        throw new Failure(`cannot read ${file == null ? "standard input" : `--file ${file}`}: ${whyUnreadable(error)}`, {cause: error});
    }
}

/** node-llama-cpp keeps a tenth of the context for what follows, and cuts a longer prompt without a word. */
export function checkLength(what: string, length: number, {contextSize, model}: LlamaContext): void {
    const room = contextSize - Math.max(1, Math.floor(contextSize / 10));
    if (length > room)
        throw new Failure(
            `${what} has ${length} tokens, but a context of ${contextSize} has room for ${room} beside what follows; ` +
            `allowed are shorter ones, or a larger --context-size (the model was trained with ${model.trainContextSize})`
        );
}
