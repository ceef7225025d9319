import {seededRandom} from "#dist/random.js";
import {addTensors, addTokenizer, GgufWriter} from "./gguf.js";
import type {Tensor} from "./gguf.js";

/*
 * Small models of several architectures, of random weights but for one thing: what the heads attend to in every layer is clear-cut.
 *
 * Of some tokens every head's queries think much (odd heads of others than even ones), of all others nothing. So no weight is
 * anywhere near `clearThreshold`, and two right computations never differ in what is chosen.
 */

export type Architecture = "llama" | "qwen3" | "gemma3" | "gemma-embedding" | "bert";

export type RandomModelOptions = {
    architecture: Architecture,
    layers: number,
    seed: number,

    /** size of the window of layers of gemma3 and gemma-embedding, but for each sixth one */
    window?: number,

    /** of llama's layers, all of which each token uses */
    experts?: number,

    /** as in llama.h: 1 the mean, 2 the first token's, 3 the last one's, 4 a rank */
    pooling?: number
};

const vocabulary = 320;
const heads = 4;
const keyValueHeads = 2;
const headSize = 32;
const width = heads * headSize;
const hidden = 64;
const context = 2048;

/** Between the weights of the tokens that count and those of the others. */
export const clearThreshold = 0.004;

/**
 * Places in a token's vector that no layer writes: one that all tokens but the first have, and a mark of the tokens that each kind of
 * head seeks.
 */
const always = 0;
const marks = [1, 2] as const;
const reserved = 3;

/** Where in a head the marks go, and what all keys have: the places that RoPE turns least. */
const soughtAt = [headSize - 1, headSize - 2] as const;
const neutralAt = headSize - 3;
const sharpness = 1.25;

/** A token that a head seeks. The first one of a text, which both kinds seek, is to be `firstToken`. */
const firstToken = 1;
function isMarked(token: number, kind: number): boolean {
    return token === firstToken || token % 10 === 3 + 4 * kind;
}

/** For each head's kind, the place in a key that its queries look at, and the place in a token's vector that it comes from. */
export const attention = {soughtAt, marks, sharpness};

/** The tensors of a model, by their names. */
export function randomTensors({architecture, layers, seed, experts, pooling}: RandomModelOptions): Map<string, Tensor> {
    const random = seededRandom(seed);
    const tensors = new Map<string, Tensor>();
    const isEncoder = architecture === "bert";
    const isGemma = architecture === "gemma3" || architecture === "gemma-embedding";
    const normalizesKeys = architecture === "qwen3" || isGemma;

    const add = (name: string, shape: readonly number[], valueOf: (row: number, column: number) => number) => {
        const columns = shape[0]!;
        const size = shape.reduce((product, length) => product * length, 1);
        const values = Float32Array.from({length: size}, (_, i) => valueOf(Math.floor(i / columns), i % columns));
        tensors.set(name, {shape, values});
    };
    const noise = (deviation: number) => deviation * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const addMatrix = (name: string, columns: number, rows: number, gain = 1) => {
        add(`${name}.weight`, [columns, rows], () => noise(gain / Math.sqrt(columns)));
    };
    // what is added to the tokens' vectors spares the reserved places
    const addWriting = (name: string, columns: number, gain: number) => {
        add(`${name}.weight`, [columns, width], (row) => row < reserved ? 0 : noise(gain / Math.sqrt(columns)));
    };
    const addNorm = (name: string, size: number, weight: (i: number) => number = () => 1) => {
        add(`${name}.weight`, [size], (_, i) => weight(i));
        if (isEncoder)
            add(`${name}.bias`, [size], () => noise(0.1));
    };
    const spared = (i: number) => i < reserved ? 0 : 1;

    // gemma multiplies the embeddings by the root of the width
    const scale = isGemma ? 1 / Math.sqrt(width) : 1;
    add("token_embd.weight", [width, vocabulary], (token, i) => {
        if (i >= reserved)
            return noise(scale);
        const isThere = i === always
            ? token !== firstToken
            : isMarked(token, i - marks[0]);
        return isThere ? 8 * scale : 0;
    });
    if (isEncoder) {
        add("position_embd.weight", [width, context], (_, i) => spared(i) * noise(0.3));
        addNorm("token_embd_norm", width);
    }

    for (let layer = 0; layer < layers; layer++) {
        const block = `blk.${layer}`;
        add(`${block}.attn_q.weight`, [width, heads * headSize], (row, column) => {
            const kind = Math.floor(row / headSize) % marks.length;
            if (column < reserved)
                return column === always && row % headSize === soughtAt[kind] ? sharpness : 0;
            return noise(0.012);
        });
        add(`${block}.attn_k.weight`, [width, keyValueHeads * headSize], (row, column) => {
            if (column < reserved)
                return row % headSize === (column === always ? neutralAt : soughtAt[column - marks[0]]) ? sharpness : 0;
            return noise(0.012);
        });
        addMatrix(`${block}.attn_v`, width, keyValueHeads * headSize);
        addWriting(`${block}.attn_output`, heads * headSize, 2);
        if (normalizesKeys) {
            addNorm(`${block}.attn_q_norm`, headSize, () => 1.35);
            addNorm(`${block}.attn_k_norm`, headSize, () => 1.35);
        }

        if (experts == null) {
            if (!isEncoder)
                addMatrix(`${block}.ffn_gate`, width, hidden);
            addMatrix(`${block}.ffn_up`, width, hidden);
            addWriting(`${block}.ffn_down`, hidden, 1);
        } else {
            addMatrix(`${block}.ffn_gate_inp`, width, experts);
            for (const name of ["ffn_gate_exps", "ffn_up_exps"])
                add(`${block}.${name}.weight`, [width, hidden, experts], () => noise(1 / Math.sqrt(width)));
            add(`${block}.ffn_down_exps.weight`, [hidden, width, experts], (row) => row % width < reserved ? 0 : noise(1 / Math.sqrt(hidden)));
        }

        if (isEncoder) {
            addNorm(`${block}.attn_output_norm`, width);
            addNorm(`${block}.layer_output_norm`, width);
        } else {
            addNorm(`${block}.attn_norm`, width);
            addNorm(`${block}.ffn_norm`, width);
        }
        if (isGemma) {
            addNorm(`${block}.post_attention_norm`, width, () => 0.6);
            addNorm(`${block}.post_ffw_norm`, width, () => 0.6);
        }
    }

    if (!isEncoder) {
        addNorm("output_norm", width);
        add("output.weight", [width, vocabulary], (_, column) => spared(column) * noise(1 / Math.sqrt(width)));
    }
    if (pooling === 4) {
        if (isEncoder)
            addMatrix("cls", width, width);
        add("cls.output.weight", [width, architecture === "qwen3" ? 2 : 1], (_, column) => spared(column) * noise(2 / Math.sqrt(width)));
    }
    return tensors;
}

/** Writes a model; `tensors` in place of its own ones, if there are any. */
export async function writeRandomModel(path: string, options: RandomModelOptions, tensors = randomTensors(options)): Promise<void> {
    const {architecture, layers, window, experts, pooling} = options;
    const isEncoder = architecture === "bert";
    const key = (name: string) => `${architecture}.${name}`;

    const writer = new GgufWriter()
        .addMetadata("general.architecture", "string", architecture)
        .addMetadata("general.name", "string", `random ${architecture}`)
        .addMetadata("general.file_type", "uint32", 0)
        .addMetadata(key("block_count"), "uint32", layers)
        .addMetadata(key("context_length"), "uint32", context)
        .addMetadata(key("embedding_length"), "uint32", width)
        .addMetadata(key("feed_forward_length"), "uint32", hidden)
        .addMetadata(key("vocab_size"), "uint32", vocabulary)
        .addMetadata(key("attention.head_count"), "uint32", heads)
        .addMetadata(key("attention.head_count_kv"), "uint32", keyValueHeads)
        .addMetadata(key("attention.key_length"), "uint32", headSize)
        .addMetadata(key("attention.value_length"), "uint32", headSize);
    addTokenizer(writer, vocabulary);

    if (isEncoder) {
        writer
            .addMetadata(key("attention.layer_norm_epsilon"), "float32", 1e-5)
            .addMetadata(key("attention.causal"), "bool", false)
            .addMetadata("tokenizer.ggml.token_type_count", "uint32", 1);
    } else {
        writer
            .addMetadata(key("attention.layer_norm_rms_epsilon"), "float32", 1e-5)
            .addMetadata(key("rope.dimension_count"), "uint32", headSize)
            // slow, so that what heads seek looks alike from everywhere
            .addMetadata(key("rope.freq_base"), "float32", 1e6);
    }
    if (experts != null) {
        writer
            .addMetadata(key("expert_count"), "uint32", experts)
            .addMetadata(key("expert_used_count"), "uint32", experts);
    }
    if (window != null)
        writer.addMetadata(key("attention.sliding_window"), "uint32", window);
    if (pooling != null)
        writer.addMetadata(key("pooling_type"), "uint32", pooling);
    if (pooling === 4 && architecture === "qwen3")
        writer.addMetadata(key("classifier.output_labels"), "string", ["yes", "no"]);

    await addTensors(writer, tensors).write(path);
}

/** A text of random tokens, of which some count to each kind of head. */
export function randomText(length: number, seed: number): number[] {
    const random = seededRandom(seed);
    return Array.from({length}, (_, i) => i === 0 ? firstToken : 3 + Math.floor(random() * (vocabulary - 3)));
}
