import {fileURLToPath} from "node:url";
import {Option} from "commander";
import {UsageError} from "./failure.js";
import type {Command} from "commander";
import type {AttentionEmulationOptions} from "../index.js";

/*
 * Flags that several commands share. Those about emulation have the names and the defaults of `emulateAttention`'s options.
 */

export const embeddedModelPath = fileURLToPath(new URL("../../models/reattend-mini.gguf", import.meta.url));

export type ModelFlags = {
    model: string,
    threads?: number,
    contextSize?: number,
    flashAttention: boolean,
    debug?: boolean
};

export type EmulationFlags = Required<Pick<AttentionEmulationOptions, "strength" | "threshold" | "sourceLayer" | "pattern" | "kernel">> & {
    schedule: "linear" | "constant" | number[],
    normalize?: boolean
};

export type SamplingFlags = {
    temperature: number,
    seed?: number,
    maxTokens: number,
    repeatPenalty: number
};

export function addModelFlags(command: Command, {threads}: {threads?: number} = {}): Command {
    const threadsFlag = numberOption(
        "--threads <n>", `threads to compute with${threads == null ? " (default: physical cores)" : ""}`, {integer: true, min: 1}
    ).default(threads);
    return command
        .addOption(new Option("-m, --model <file>", "GGUF file of the model")
            .default(embeddedModelPath, "the embedded model"))
        .addOption(threadsFlag)
        .addOption(numberOption("--context-size <n>", "length of the context in tokens (default: as fits)", {integer: true, min: 8}))
        .option("--flash-attention", "compute with flash attention", true)
        .option("--no-flash-attention", "compute without it")
        .option("--debug", "show llama.cpp's messages, and where an error comes from");
}

export function addEmulationFlags(command: Command): Command {
    return command
        .addOption(numberOption("-s, --strength <number>", "how much the chosen keys' weights grow", {min: -1}).default(0.2))
        .addOption(numberOption("--threshold <number>", "a key is chosen above this weight", {above: 0, below: 1}).default(0.01))
        .addOption(numberOption("--source-layer <n>", "the layer whose attention chooses the keys", {integer: true, min: 0}).default(0))
        .addOption(scheduleOption())
        .addOption(choiceOption("--pattern <keys>", "which keys are chosen", ["early-layer", "all"]))
        .option("--normalize", "make the changed weights sum to 1 again")
        .addOption(choiceOption("--kernel <kernel>", "how it is computed", ["auto", "dense"]));
}

export function addSamplingFlags(command: Command, {maxTokens}: {maxTokens: number}): Command {
    return command
        .addOption(numberOption("-n, --max-tokens <n>", "stop after this many tokens", {integer: true, min: 1}).default(maxTokens))
        .addOption(numberOption("-t, --temperature <number>", "0: always the likeliest token", {min: 0}).default(0))
        .addOption(numberOption("--seed <n>", "seed of the random choices above temperature 0", {integer: true, min: 0, max: 2 ** 32 - 1}))
        .addOption(numberOption("--repeat-penalty <factor>", "make repeated tokens less likely; 1: don't", {min: 1}).default(1));
}

/** The emulation flags as the options of `emulateAttention`. */
export function emulationOptions(
    {strength, threshold, sourceLayer, schedule, pattern, normalize, kernel}: EmulationFlags
): AttentionEmulationOptions {
    return {strength, threshold, sourceLayer, schedule, pattern, normalize: normalize ?? false, kernel};
}

/** The sampling flags as node-llama-cpp's options. Its own default is to penalise repetition, even at temperature 0. */
export function samplingOptions({temperature, seed, maxTokens, repeatPenalty}: SamplingFlags) {
    return {
        temperature,
        seed,
        maxTokens,
        repeatPenalty: repeatPenalty === 1
            ? false as const
            : {penalty: repeatPenalty}
    };
}

type Range = {
    integer?: boolean,
    min?: number,
    max?: number,
    above?: number,
    below?: number
};

export function numberOption(flags: string, description: string, range: Range): Option {
    const option = new Option(flags, description);
    return option.argParser((text: string) => parseNumber(option.long ?? flags, text, range));
}

/** A list such as 0,512,2048. */
export function numberListOption(flags: string, description: string, range: Range): Option {
    const option = new Option(flags, description);
    return option.argParser((text: string) => text.split(",").map((item) => parseNumber(option.long ?? flags, item, range)));
}

/** The first choice is the default. */
export function choiceOption(flags: string, description: string, choices: readonly string[]): Option {
    const option = new Option(flags, `${description} (choices: ${choices.join(", ")})`);
    return option
        .argParser((text: string) => {
            if (!choices.includes(text))
                throw new UsageError(`${option.long ?? flags} is "${text}"; allowed are ${choices.join(" and ")}`);
            return text;
        })
        .default(choices[0]);
}

export function parseNumber(name: string, text: string, {integer = false, min, max, above, below}: Range): number {
    const value = text.trim() === ""
        ? NaN
        : Number(text);
    const allowed = Number.isFinite(value) &&
        (!integer || Number.isSafeInteger(value)) &&
        (min == null || value >= min) && (max == null || value <= max) &&
        (above == null || value > above) && (below == null || value < below);
    if (allowed)
        return value;

    const limits = [
        min != null && max == null && `of at least ${min}`,
        min != null && max != null && `from ${min} to ${max}`,
        above != null && `above ${above}`,
        below != null && `below ${below}`
    ].filter((limit) => limit !== false);
    throw new UsageError(`${name} is "${text}"; allowed are ${integer ? "whole numbers" : "numbers"} ${limits.join(" and ")}`);
}

export function scheduleOption(): Option {
    return new Option("--schedule <gains>", 'gain per layer: "linear", "constant" or a number for each, like 0,0.5,0.2')
        .argParser(parseSchedule)
        .default("linear");
}

function parseSchedule(text: string): "linear" | "constant" | number[] {
    if (text === "linear" || text === "constant")
        return text;

    const gains = text.split(",").map((item) => item.trim() === "" ? NaN : Number(item));
    if (!gains.every(Number.isFinite))
        throw new UsageError(`--schedule is "${text}"; allowed are linear, constant, and a number for each layer, like 0,0.5,0.2`);
    return gains;
}
