import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {captureAttention} from "reattend";
import {seededRandom} from "#dist/random.js";
import {addTensors, addTokenizer, GgufWriter} from "../support/gguf.js";
import type {Tensor} from "../support/gguf.js";
import {oracleModel} from "../support/oracleModel.js";

/*
 * A model whose decoder has fewer layers than its encoder: layers are those of the decoder.
 */

const [width, heads, hidden, vocabulary, buckets] = [64, 2, 64, 320, 8] as const;
const layers = {enc: 3, dec: 2};

test("the layers to capture are the decoder's", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    const modelPath = path.join(folder, "t5.gguf");
    await writeModel(modelPath);
    const model = await oracleModel.llama.loadModel({modelPath});
    const context = await model.createContext({contextSize: 64, threads: 1});

    const capture = captureAttention(context);
    t.deepEqual(capture.options.layers, [0, 1]);
    capture.dispose();
    for (const options of [{layers: [2]}, {sourceLayer: 2}])
        t.throws(() => captureAttention(context, options), {instanceOf: RangeError});

    await model.dispose();
    await fs.rm(folder, {recursive: true});
});

async function writeModel(modelPath: string): Promise<void> {
    const random = seededRandom(16);
    const tensors = new Map<string, Tensor>();
    const add = (name: string, ...shape: number[]) => {
        const values = Float32Array.from({length: shape.reduce((a, b) => a * b)}, () => (random() - 0.5) / 4);
        tensors.set(`${name}.weight`, {shape, values});
    };
    add("token_embd", width, vocabulary);
    for (const part of ["enc", "dec"] as const) {
        add(`${part}.output_norm`, width);
        for (let layer = 0; layer < layers[part]; layer++) {
            for (const kind of part === "enc" ? ["attn"] : ["attn", "cross_attn"]) {
                add(`${part}.blk.${layer}.${kind}_norm`, width);
                for (const name of ["q", "k", "v", "o"])
                    add(`${part}.blk.${layer}.${kind}_${name}`, width, width);
            }
            if (layer === 0)
                add(`${part}.blk.0.attn_rel_b`, heads, buckets);
            add(`${part}.blk.${layer}.ffn_norm`, width);
            add(`${part}.blk.${layer}.ffn_up`, width, hidden);
            add(`${part}.blk.${layer}.ffn_down`, hidden, width);
        }
    }

    const writer = new GgufWriter()
        .addMetadata("general.architecture", "string", "t5")
        .addMetadata("t5.block_count", "uint32", layers.enc)
        .addMetadata("t5.decoder_block_count", "uint32", layers.dec)
        .addMetadata("t5.context_length", "uint32", 512)
        .addMetadata("t5.embedding_length", "uint32", width)
        .addMetadata("t5.feed_forward_length", "uint32", hidden)
        .addMetadata("t5.attention.head_count", "uint32", heads)
        .addMetadata("t5.attention.key_length", "uint32", width / heads)
        .addMetadata("t5.attention.value_length", "uint32", width / heads)
        .addMetadata("t5.attention.relative_buckets_count", "uint32", buckets)
        .addMetadata("t5.attention.layer_norm_rms_epsilon", "float32", 1e-6);
    addTokenizer(writer, vocabulary);
    await addTensors(writer, tensors).write(modelPath);
}
