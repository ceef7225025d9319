import fs from "node:fs/promises";
import process from "node:process";
import {text as readAll} from "node:stream/consumers";
import {Failure, UsageError} from "./failure.js";

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
