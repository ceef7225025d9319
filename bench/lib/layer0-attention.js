import fs from "node:fs";
import {GgmlType, readGgufFileInfo} from "node-llama-cpp";
import {dequantizeQ8} from "./quantize.js";
import {Random} from "./random.js";

/** How many positions are looked at, evenly spaced over the prompt. */
const sampledPositions = 64;

/**
 * How many keys per (head, query) row have an attention weight above a threshold in the first layer of a LLaMA model,
 * for a prompt of random tokens. Computed plainly from the weights, without llama.cpp: layer 0 sees nothing but the
 * tokens' embeddings.
 * @param {string} file
 * @param {{length: number, threshold: number}} options
 * @returns {Promise<{mean: number, low: number, high: number}>} `low` and `high` are the 10th and 90th percentile
 */
export async function countKeysAboveThreshold(file, {length, threshold}) {
    const {metadata: {llama}, fullTensorInfo} = await readGgufFileInfo(file);
    const heads = llama.attention.head_count;
    const headsPerKvHead = heads / llama.attention.head_count_kv;
    const epsilon = llama.attention.layer_norm_rms_epsilon;
    const ropeBase = llama.rope.freq_base;
    const headSize = llama.rope.dimension_count;

    const tensors = openTensors(file, fullTensorInfo);
    const normWeight = tensors.read("blk.0.attn_norm.weight");
    const queryWeight = tensors.read("blk.0.attn_q.weight");
    const keyWeight = tensors.read("blk.0.attn_k.weight");

    const random = new Random(length);
    const inputs = Array.from({length}, () => (
        normalize(tensors.readRow("token_embd.weight", random.integer(llama.vocab_size)), normWeight, epsilon)
    ));
    tensors.close();

    const keys = inputs.map((input, position) => rotate(multiply(keyWeight, input), position, headSize, ropeBase));
    const counts = [];
    for (let sample = 1; sample <= sampledPositions; sample++) {
        const position = Math.ceil(sample * length / sampledPositions) - 1;
        const query = rotate(multiply(queryWeight, inputs[position]), position, headSize, ropeBase);
        for (let head = 0; head < heads; head++) {
            const kvOffset = Math.floor(head / headsPerKvHead) * headSize;
            const scores = keys.slice(0, position + 1)
                .map((key) => dot(query, head * headSize, key, kvOffset, headSize) / Math.sqrt(headSize));
            counts.push(countAbove(scores, threshold));
        }
    }

    counts.sort((a, b) => a - b);
    return {
        mean: counts.reduce((sum, count) => sum + count, 0) / counts.length,
        low: counts[Math.floor(counts.length * 0.1)],
        high: counts[Math.floor(counts.length * 0.9)]
    };
}

/** The softmax weights above the threshold, not counting the last one, which is the query's own key. */
function countAbove(scores, threshold) {
    const largest = Math.max(...scores);
    const exponentials = scores.map((score) => Math.exp(score - largest));
    const sum = exponentials.reduce((total, value) => total + value, 0);
    return exponentials.slice(0, -1).filter((value) => value > threshold * sum).length;
}

function normalize(row, weight, epsilon) {
    const meanSquare = row.reduce((sum, value) => sum + value * value, 0) / row.length;
    const scale = 1 / Math.sqrt(meanSquare + epsilon);
    return row.map((value, index) => value * scale * weight[index]);
}

/** Rotary position embedding as LLaMA files have it: neighbouring values make a pair. */
function rotate(vector, position, headSize, base) {
    const rotated = new Float32Array(vector.length);
    for (let i = 0; i < vector.length; i += 2) {
        const angle = position * base ** (-(i % headSize) / headSize);
        const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
        rotated[i] = vector[i] * cosine - vector[i + 1] * sine;
        rotated[i + 1] = vector[i] * sine + vector[i + 1] * cosine;
    }
    return rotated;
}

function multiply(matrix, vector) {
    const output = new Float32Array(matrix.length / vector.length);
    for (let row = 0; row < output.length; row++)
        output[row] = dot(matrix, row * vector.length, vector, 0, vector.length);
    return output;
}

function dot(a, aStart, b, bStart, length) {
    let sum = 0;
    for (let i = 0; i < length; i++)
        sum += a[aStart + i] * b[bStart + i];
    return sum;
}

function openTensors(file, tensorInfos) {
    const descriptor = fs.openSync(file);

    function read(name, row) {
        const {dimensions, ggmlType, fileOffset} = tensorInfos.find((tensor) => tensor.name === name);
        const [columns, rows = 1] = dimensions.map(Number);
        const rowBytes = ggmlType === GgmlType.Q8_0
            ? columns / 32 * 34
            : columns * 4;
        const bytes = Buffer.alloc(rowBytes * (row == null ? rows : 1));
        fs.readSync(descriptor, bytes, 0, bytes.length, Number(fileOffset) + rowBytes * (row ?? 0));
        return ggmlType === GgmlType.Q8_0
            ? dequantizeQ8(bytes)
            : new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    }

    return {
        read: (name) => read(name),
        readRow: read,
        close: () => fs.closeSync(descriptor)
    };
}
