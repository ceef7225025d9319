#!/usr/bin/env node
/**
 * Compares reattend with what people would use instead, on this machine: unpatched llama.cpp, stock node-llama-cpp, llama.cpp's
 * own tools, and PyTorch. Each part is a file in bench/compare.
 */
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {Command, InvalidArgumentError, Option} from "commander";
import {cacheTypes} from "#dist/cli/flags.js";
import {startProgress} from "#dist/cli/progress.js";
import {defaultThreads} from "#dist/threads.js";
import {getLlama} from "reattend";
import {compareInstructions, compareOff} from "./compare/off.js";
import {compareNode} from "./compare/node.js";
import {compareOn} from "./compare/on.js";
import {compareParallel} from "./compare/parallel.js";
import {comparePasses} from "./compare/passes.js";
import {describeMachine, layOut, toMarkdown} from "./compare/report.js";
import {compareStartup} from "./compare/startup.js";
import {compareTorch} from "./compare/torch.js";

const parts = {
    on: {compare: compareOn, builds: true},
    off: {compare: compareOff, builds: true},
    instructions: {compare: compareInstructions, builds: true},
    passes: {compare: comparePasses, builds: true},
    node: {compare: compareNode},
    parallel: {compare: compareParallel},
    startup: {compare: compareStartup},
    torch: {compare: compareTorch}
};

/** Lengths are in tokens. Rounds are odd in number, so that the median is one of them. */
const sizes = {
    on: {
        kvTypes: ["f16", "q8_0", "q4_0"],
        prefill: [{tokens: 512, processes: 7, rounds: 3}, {tokens: 2048, processes: 5, rounds: 1}, {tokens: 8192, processes: 3, rounds: 1}],
        decode: [0, 2048, 8192].map((depth) => ({depth, processes: 41, rounds: 2})),
        decodeTokens: 8,
        goal: 0.995
    },
    off: {pairs: 5, prefill: 512, prefillRounds: 4, decode: 16, decodeRounds: 8, checkedTokens: 32},
    instructions: {layers: 4, prefill: 64, decode: 8},
    passes: {kvTypes: ["f16", "q8_0", "q4_0"], depths: [0, 2048], batch: 64, decode: 4},
    node: {processes: 5, prefill: [512, 2048], prefillRounds: [3, 1], depths: [0, 2048], decode: 16, decodeRounds: 3},
    parallel: {counts: [1, 2, 4, 8], prompt: 64, tokens: 32, rounds: 21},
    startup: {rounds: 13},
    torch: {prefill: 512, decode: 16, rounds: 5}
};
const quickSizes = {
    on: {
        kvTypes: ["f16"],
        prefill: [{tokens: 128, processes: 3, rounds: 1}],
        decode: [0, 256].map((depth) => ({depth, processes: 3, rounds: 3})),
        decodeTokens: 8,
        goal: 0.995
    },
    off: {pairs: 3, prefill: 128, prefillRounds: 2, decode: 8, decodeRounds: 4, checkedTokens: 8},
    node: {processes: 3, prefill: [128], prefillRounds: [1], depths: [0, 256], decode: 8, decodeRounds: 1},
    parallel: {counts: [1, 4], prompt: 32, tokens: 16, rounds: 3},
    startup: {rounds: 3},
    torch: {prefill: 128, decode: 4, rounds: 1}
};

const flags = new Command("bench:compare")
    .description("Compare reattend with unpatched llama.cpp, stock node-llama-cpp, llama.cpp's own tools and PyTorch.")
    .option("--only <list>", `parts: ${Object.keys(parts).join(",")}`, partList, Object.keys(parts))
    .option("-m, --model <file>", "GGUF file of the model (default: what bench:model makes)")
    .option("--cache <list>", "types of KV cache for on and passes (default: f16,q8_0,q4_0; with --quick f16)", cacheTypeList)
    .option("--threads <n>", "threads to compute with (default: physical cores)", positiveInteger)
    .addOption(new Option("--clock <clock>", "what is timed in on, off and node; cpu: the CPU time of all threads, for a busy machine")
        .choices(["wall", "cpu"]).default("wall"))
    .option("--quick", "few rounds and short texts")
    .option("--no-build", "leave out what has to be compiled first")
    .option("--json", "print one JSON object")
    .option("--markdown <file>", "write the table there, too")
    .exitOverride(({exitCode}) => process.exit(exitCode === 0 ? 0 : 2))
    .parse()
    .opts();

if (flags.markdown != null) {
    try {
        fs.appendFileSync(flags.markdown, ""); // what can't be written is told now, not after the first part
    } catch (error) {
        console.error(`bench:compare: cannot write ${flags.markdown}: ${error.message}`);
        process.exit(1);
    }
}

const machine = describeMachine();
const modelPath = flags.model ?? makeModel();
const {model, shape, threads} = await inspect(modelPath).catch((error) => {
    console.error(`bench:compare: ${modelPath} can't be loaded: ${error.message}`);
    process.exit(1);
});
const result = {
    machine, model, threads, clock: flags.clock, quick: flags.quick === true, rows: [], notes: [], leftOut: {}, failed: false
};

const progress = startProgress("");
for (const part of flags.only) {
    const {compare, builds} = parts[part];
    const {rows = [], notes = [], leftOut, failed = false} = builds && !flags.build
        ? {leftOut: "needs a build of its own; not with --no-build"}
        : await compare({
            model: modelPath,
            shape,
            threads,
            clock: flags.clock,
            sizes: withCacheTypes(flags.quick ? quickSizes : sizes),
            build: flags.build,
            makeModel,
            progress: (text) => {
                progress.text = `${part}: ${text}`;
            }
        }).catch((error) => ({leftOut: `it failed: ${error.message}`, failed: true}));
    result.rows.push(...rows.map((row) => ({part, ...row})));
    result.notes.push(...notes);
    if (leftOut != null)
        result.leftOut[part] = leftOut;
    result.failed ||= failed;
    if (flags.markdown != null)
        fs.writeFileSync(flags.markdown, toMarkdown(result)); // after each part, as all of them take a while
}
progress.stop();

console.log(flags.json
    ? JSON.stringify(result, undefined, 4)
    : layOut(result));
if (result.failed)
    process.exitCode = 1;

/** With the options of bench:model; its path. */
function makeModel(...options) {
    const program = fileURLToPath(new URL("make-model.js", import.meta.url));
    const output = execFileSync(process.execPath, [program, ...options.map(String)], {encoding: "utf8", stdio: ["ignore", "pipe", "inherit"]});
    return output.trim().split("\n").at(-1);
}

/** What the model is, and for PyTorch its shape. */
async function inspect(modelPath) {
    const llama = await getLlama({gpu: false, logLevel: "error"});
    try {
        const loaded = await llama.loadModel({modelPath, vocabOnly: true});
        const {general, llama: metadata} = loaded.fileInfo.metadata;
        const heads = metadata?.attention?.head_count;
        return {
            model: general.name ?? general.architecture,
            threads: flags.threads ?? defaultThreads(llama.cpuMathCores),
            shape: metadata == null
                ? undefined
                : {
                    layers: metadata.block_count,
                    heads,
                    "kv-heads": metadata.attention.head_count_kv,
                    "head-size": metadata.embedding_length / heads,
                    ffn: metadata.feed_forward_length,
                    vocabulary: metadata.vocab_size
                }
        };
    } finally {
        await llama.dispose();
    }
}

function withCacheTypes({on, passes, ...others}) {
    const types = flags.cache == null ? {} : {kvTypes: flags.cache};
    return {...others, on: {...on, ...types}, passes: passes && {...passes, ...types}};
}

function partList(text) {
    return listOf(text, Object.keys(parts));
}

function cacheTypeList(text) {
    return listOf(text, cacheTypes);
}

function listOf(text, allowed) {
    const list = text.split(",");
    if (!list.every((item) => allowed.includes(item)))
        throw new InvalidArgumentError(`Allowed are ${allowed.join(", ")}.`);
    return list;
}

function positiveInteger(text) {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1)
        throw new InvalidArgumentError("Allowed are whole numbers from 1.");
    return value;
}
