import fs from "node:fs";
import {fileURLToPath} from "node:url";
import {Option} from "commander";
import {cannotRead, parseProfile} from "../profile/profile.js";
import {decodeText} from "../textFile.js";
import {UsageError} from "./failure.js";
import type {Command} from "commander";
import type {AttentionEmulationOptions, AttentionProfile} from "../index.js";

/*
 * Flags that several commands share. Those about emulation have the names and the defaults of `emulateAttention`'s options.
 */

/** More than any model has seen, and few enough that what can't fit is found before gigabytes are taken for it. */
export const mostTokens = 10_000_000;

export const embeddedModelPath = fileURLToPath(new URL("../../models/reattend-mini.gguf", import.meta.url));

export const gpuTypes = ["cuda", "vulkan", "metal", "false"] as const;

/** As llama.cpp's own tools name them, and as many. */
export const cacheTypes = ["f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"] as const;

const gpuChoices = ["auto", ...gpuTypes] as const;

export type GpuFlag = typeof gpuChoices[number];

export type ModelFlags = {
    model: string,

    /** `undefined`: what NODE_LLAMA_CPP_GPU says */
    gpu?: GpuFlag,
    gpuLayers?: number,
    threads?: number,
    contextSize?: number,
    cacheTypeK: typeof cacheTypes[number],
    cacheTypeV: typeof cacheTypes[number],
    flashAttention: boolean,
    debug?: boolean
};

export type EmulationFlags = Required<Pick<AttentionEmulationOptions, "strength" | "threshold" | "sourceLayer" | "pattern" | "kernel">> & {
    schedule: "linear" | "constant" | number[],
    normalize?: boolean,
    patternSeed: number,
    profile?: AttentionProfile,
    anyModel?: boolean
};

export type SamplingFlags = {
    temperature: number,
    seed?: number,
    maxTokens: number,
    repeatPenalty: number
};

export function addModelFlags(command: Command, {threads}: {threads?: number} = {}): Command {
    const threadsFlag = numberOption(
        "--threads <n>", `threads to compute with${threads == null ? " (default: physical cores)" : ""}`, {integer: true, min: 1, max: 512}
    ).default(threads);
    return command
        .addOption(new Option("-m, --model <file>", "GGUF file of the model")
            .default(embeddedModelPath, "the embedded model"))
        .addOption(gpuFlag())
        .addOption(numberOption("--gpu-layers <n>", "layers on the GPU (default: as many as fit)", {integer: true, min: 0}))
        .addOption(threadsFlag)
        .addOption(numberOption("--context-size <n>", "length of the context in tokens, rounded up to a multiple of 256 (default: as fits)", {integer: true, min: 8, max: mostTokens}))
        .addOption(choiceOption("--cache-type-k <type>", "type of the keys in the KV cache", cacheTypes))
        .addOption(choiceOption("--cache-type-v <type>", "type of the values in the KV cache", cacheTypes))
        .option("--flash-attention", "compute with flash attention", true)
        .option("--no-flash-attention", "compute without it")
        .option("--debug", "show llama.cpp's messages, and where an error comes from");
}

/** It has no default, so that without it the environment counts. */
export function gpuFlag(): Option {
    return optionalChoiceOption(
        "--gpu <type>", "what to compute with, false: only the CPU (default: as NODE_LLAMA_CPP_GPU says, else auto)", gpuChoices
    );
}

export function addEmulationFlags(command: Command): Command {
    return command
        .addOption(numberOption("-s, --strength <number>", "how much the chosen keys' weights grow", {min: -1}).default(0.2))
        .addOption(numberOption("--threshold <number>", "a key is chosen above this weight", {above: 0, below: 1}).default(0.01))
        .addOption(numberOption("--source-layer <n>", "the layer whose attention chooses the keys", {integer: true, min: 0}).default(0))
        .addOption(scheduleOption())
        .addOption(choiceOption("--pattern <keys>", "which keys are chosen", ["early-layer", "all", "random", "first-token"]))
        .addOption(numberOption("--pattern-seed <n>", "seed of the random pattern", {integer: true, min: 0, max: 2 ** 32 - 1}).default(0))
        .option("--normalize", "make the changed weights sum to 1 again")
        .addOption(choiceOption("--kernel <kernel>", "how it is computed", ["auto", "dense"]))
        .addOption(profileOption())
        .option("--any-model", "use the profile on another model than it was made for");
}

/** In place of all flags about emulation. */
function profileOption(): Option {
    return new Option("--profile <file>", "take all of this from a file that tune, or saveProfile, has written")
        .argParser(readProfile)
        .conflicts(["strength", "threshold", "sourceLayer", "schedule", "pattern", "patternSeed", "normalize", "kernel"]);
}

function readProfile(file: string): AttentionProfile {
    let text: string;
    try {
        text = decodeText(fs.readFileSync(file));
    } catch (error) {
        throw cannotRead(file, error);
    }
    return parseProfile(text, file);
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
    {strength, threshold, sourceLayer, schedule, pattern, patternSeed, normalize, kernel, profile, anyModel}: EmulationFlags
): AttentionEmulationOptions | AttentionProfile {
    if (profile != null)
        return anyModel
            ? profile.options
            : profile;
    if (anyModel)
        throw new UsageError("--any-model is about a profile; name one with --profile");
    return {strength, threshold, sourceLayer, schedule, pattern, seed: patternSeed, normalize: normalize ?? false, kernel};
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
    return optionalChoiceOption(flags, description, choices).default(choices[0]);
}

export function optionalChoiceOption(flags: string, description: string, choices: readonly string[]): Option {
    const option = new Option(flags, `${description} (choices: ${choices.join(", ")})`);
    return option
        .argParser((text: string) => {
            if (!choices.includes(text))
                throw new UsageError(`${option.long ?? flags} is "${text}"; allowed are ${new Intl.ListFormat("en-GB").format(choices)}`);
            return text;
        });
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
