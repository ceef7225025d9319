#!/usr/bin/env node
/**
 * Makes a LLaMA model of random weights for benchmarks, once, and prints its path as the last line.
 *
 * What it computes means nothing, but it costs what a real model of its shape costs. So that early-layer emulation has
 * the work it has on a real model, the queries and keys of layer 0 are scaled for about 10 to 30 keys per row to pass
 * the threshold; how many do is measured on the finished file and shown.
 */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {Command, InvalidArgumentError} from "commander";
import {GgufWriter} from "./lib/gguf-writer.js";
import {countKeysAboveThreshold} from "./lib/layer0-attention.js";
import {Random} from "./lib/random.js";
import {addTokenizer} from "./lib/tokenizer.js";

const folder = fileURLToPath(new URL("build", import.meta.url));
const threshold = 0.01;
const normEpsilon = 1e-5;
const weightDeviation = 0.02;

/**
 * The standard deviation of layer 0's attention scores. Scores are close to normal, so the number of keys per row above
 * 0.01 follows from it: near 0 every weight is 1/n, far above only the largest few pass. This is the middle of
 * the range that gives 10 to 30 for 512 as well as 2,048 keys.
 */
const scoreDeviation = 2;

const command = new Command("bench:model")
    .description("Make a LLaMA model of random weights for benchmarks; by default one of 360M parameters.")
    .option("--layers <n>", "layers", positiveInteger, 32)
    .option("--heads <n>", "query heads; the model's width is heads × head size", positiveInteger, 15)
    .option("--kv-heads <n>", "key and value heads", positiveInteger, 5)
    .option("--head-size <n>", "values per head", positiveInteger, 64)
    .option("--ffn <n>", "width of the feed-forward part", positiveInteger, 2560)
    .option("--vocabulary <n>", "tokens in the vocabulary", positiveInteger, 49152)
    .option("--type <type>", "type of the weights: Q8_0 or F32", oneOf("Q8_0", "F32"), "Q8_0")
    .option("--context <n>", "longest context", positiveInteger, 8192)
    .option("--seed <n>", "seed of the weights", positiveInteger, 1)
    .option("--output <file>", "where to write it; default: in bench/build, kept from run to run")
    .option("--force", "make it anew, even if it is there")
    .exitOverride(({exitCode}) => process.exit(exitCode === 0 ? 0 : 2));

const shape = command.parse().opts();
shape.width = shape.heads * shape.headSize;
if (shape.heads % shape.kvHeads !== 0)
    command.error(`error: --heads ${shape.heads} is not a multiple of --kv-heads ${shape.kvHeads}`);
if (shape.type === "Q8_0" && (shape.width % 32 !== 0 || shape.ffn % 32 !== 0))
    command.error(`error: Q8_0 needs multiples of 32; the width is ${shape.width} and --ffn ${shape.ffn}`);
if (shape.vocabulary < 320)
    command.error(`error: --vocabulary ${shape.vocabulary} is too small; at least 320 tokens are needed`);

const file = shape.output ?? path.join(folder, `${nameOf(shape)}.gguf`);
if (shape.force || !fs.existsSync(file))
    await make(file, shape);
console.log(file);

async function make(file, shape) {
    // written beside its place and then moved there, so that a half-written model is never taken for a whole one
    const unfinished = `${file}.${process.pid}.tmp`;
    process.once("SIGINT", () => {
        fs.rmSync(unfinished, {force: true});
        process.exit(130);
    });

    fs.mkdirSync(path.dirname(file), {recursive: true});
    try {
        await describeModel(shape).write(unfinished, showProgress());
        await showKeyCounts(unfinished, shape.context);
        fs.renameSync(unfinished, file);
    } finally {
        fs.rmSync(unfinished, {force: true});
    }
}

function describeModel(shape) {
    const {width, headSize, layers, ffn, vocabulary, type} = shape;
    const kvWidth = shape.kvHeads * headSize;
    const random = new Random(shape.seed);
    const normal = (deviation) => (values) => random.fillNormal(values, deviation);
    const ones = (values) => values.fill(1);

    const writer = new GgufWriter()
        .addMetadata("general.architecture", "string", "llama")
        .addMetadata("general.name", "string", `random ${nameOf(shape)}`)
        .addMetadata("general.file_type", "uint32", type === "Q8_0" ? 7 : 0)
        .addMetadata("llama.block_count", "uint32", layers)
        .addMetadata("llama.context_length", "uint32", shape.context)
        .addMetadata("llama.embedding_length", "uint32", width)
        .addMetadata("llama.feed_forward_length", "uint32", ffn)
        .addMetadata("llama.attention.head_count", "uint32", shape.heads)
        .addMetadata("llama.attention.head_count_kv", "uint32", shape.kvHeads)
        .addMetadata("llama.attention.layer_norm_rms_epsilon", "float32", normEpsilon)
        .addMetadata("llama.rope.dimension_count", "uint32", headSize)
        .addMetadata("llama.rope.freq_base", "float32", 10000)
        .addMetadata("llama.vocab_size", "uint32", vocabulary);
    addTokenizer(writer, vocabulary);

    // without an output.weight, llama.cpp uses the embeddings there too
    writer.addTensor("token_embd.weight", type, [width, vocabulary], normal(weightDeviation));
    for (let layer = 0; layer < layers; layer++) {
        // normalised inputs have variance 1, so queries and keys get variance width × deviation², and scores,
        // sums of headSize products over √headSize, have that as their standard deviation
        const queryDeviation = layer === 0
            ? Math.sqrt(scoreDeviation / width)
            : weightDeviation;
        writer
            .addTensor(`blk.${layer}.attn_norm.weight`, "F32", [width], ones)
            .addTensor(`blk.${layer}.attn_q.weight`, type, [width, width], normal(queryDeviation))
            .addTensor(`blk.${layer}.attn_k.weight`, type, [width, kvWidth], normal(queryDeviation))
            .addTensor(`blk.${layer}.attn_v.weight`, type, [width, kvWidth], normal(weightDeviation))
            .addTensor(`blk.${layer}.attn_output.weight`, type, [width, width], normal(weightDeviation))
            .addTensor(`blk.${layer}.ffn_norm.weight`, "F32", [width], ones)
            .addTensor(`blk.${layer}.ffn_gate.weight`, type, [width, ffn], normal(weightDeviation))
            .addTensor(`blk.${layer}.ffn_up.weight`, type, [width, ffn], normal(weightDeviation))
            .addTensor(`blk.${layer}.ffn_down.weight`, type, [ffn, width], normal(weightDeviation));
    }
    return writer.addTensor("output_norm.weight", "F32", [width], ones);
}

async function showKeyCounts(file, longest) {
    for (const length of [512, 2048].filter((length) => length <= longest)) {
        const {mean, low, high} = await countKeysAboveThreshold(file, {length, threshold});
        console.error(`keys per row above ${threshold}, ${length} tokens: mean ${mean.toFixed(1)}, 10th to 90th percentile ${low} to ${high}`);
    }
}

function showProgress() {
    if (!process.stderr.isTTY)
        return undefined;

    let shown = -1;
    return (fraction) => {
        const percent = Math.floor(fraction * 100);
        if (percent !== shown)
            process.stderr.write(`\rwriting ${percent} %${percent === 100 ? "\n" : ""}`);
        shown = percent;
    };
}

function nameOf({layers, heads, kvHeads, headSize, ffn, vocabulary, type, context, seed}) {
    return `llama-${layers}l-${heads}h-${kvHeads}kv-${headSize}d-${ffn}f-${vocabulary}v-${context}c-${type}-seed${seed}`;
}

function positiveInteger(text) {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1)
        throw new InvalidArgumentError("Allowed are whole numbers from 1.");
    return value;
}

function oneOf(...choices) {
    return (text) => {
        if (!choices.includes(text))
            throw new InvalidArgumentError(`Allowed are ${choices.join(" and ")}.`);
        return text;
    };
}
