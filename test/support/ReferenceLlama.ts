import fs from "node:fs/promises";
import {readGgufFileInfo} from "reattend";
import {readWeight} from "./float32Model.js";
import type {GgufTensorInfo} from "reattend";

/** What is emulated, as the algorithm's formula has it. */
export type ReferenceEmulation = {
    /** of each position, or of all */
    strength: number | readonly number[],
    threshold: number,
    sourceLayer: number,
    gain: (layer: number, head: number) => number,
    pattern: "early-layer" | "all" | "random" | "first-token",
    seed?: number,
    normalize: boolean
};

/** The schedule of the paper. */
export function linearGain(layers: number): (layer: number) => number {
    return (layer) => 1 - layer / (layers - 1);
}

/** Rows of a matrix, one for each output. */
type Matrix = {rows: number, columns: number, values: Float64Array};

type Layer = {
    attentionNorm: Float64Array,
    query: Matrix,
    key: Matrix,
    value: Matrix,
    attentionOutput: Matrix,
    feedForwardNorm: Float64Array,
    gate: Matrix,
    up: Matrix,
    down: Matrix
};

/**
 * A LLaMA with early-layer emulation in 64-bit floating point, straight from the formulas: the truth for what the authors' own code
 * doesn't do. Reads any GGUF file of architecture llama with F32 or F16 weights and plain RoPE. All tokens go in at once.
 */
export class ReferenceLlama {
    private constructor(
        readonly layerCount: number,
        readonly headCount: number,
        private readonly keyValueHeadCount: number,
        private readonly headSize: number,
        private readonly ropeSize: number,
        private readonly ropeBase: number,
        private readonly epsilon: number,
        private readonly embedding: Matrix,
        private readonly layers: readonly Layer[],
        private readonly outputNorm: Float64Array,
        private readonly output: Matrix
    ) {}

    static async read(path: string): Promise<ReferenceLlama> {
        const {metadata, fullTensorInfo} = await readGgufFileInfo(path, {logWarnings: false});
        const architecture: string = metadata.general.architecture;
        if (architecture !== "llama")
            throw new Error(`Architecture ${architecture} is not llama`);

        const file = await fs.readFile(path);
        const tensors = new Map(fullTensorInfo!.map((tensor) => [tensor.name, tensor]));
        const find = (name: string) => {
            const tensor = tensors.get(`${name}.weight`);
            if (tensor == null)
                throw new Error(`The file has no tensor ${name}.weight`);
            return tensor;
        };
        const vector = (name: string) => readValues(file, find(name));
        const matrix = (name: string): Matrix => {
            const [columns, rows] = find(name).dimensions.map(Number) as [number, number];
            return {rows, columns, values: vector(name)};
        };

        const {
            block_count: layerCount, embedding_length: width, attention, rope
        } = metadata.llama as unknown as LlamaMetadata;
        const headSize = attention.key_length ?? width / attention.head_count;

        return new ReferenceLlama(
            layerCount,
            attention.head_count,
            attention.head_count_kv ?? attention.head_count,
            headSize,
            rope.dimension_count ?? headSize,
            rope.freq_base ?? 10000,
            attention.layer_norm_rms_epsilon,
            matrix("token_embd"),
            Array.from({length: layerCount}, (_, i) => ({
                attentionNorm: vector(`blk.${i}.attn_norm`),
                query: matrix(`blk.${i}.attn_q`),
                key: matrix(`blk.${i}.attn_k`),
                value: matrix(`blk.${i}.attn_v`),
                attentionOutput: matrix(`blk.${i}.attn_output`),
                feedForwardNorm: vector(`blk.${i}.ffn_norm`),
                gate: matrix(`blk.${i}.ffn_gate`),
                up: matrix(`blk.${i}.ffn_up`),
                down: matrix(`blk.${i}.ffn_down`)
            })),
            vector("output_norm"),
            tensors.has("output.weight")
                ? matrix("output")
                : matrix("token_embd")
        );
    }

    /** The logits of each position. */
    logits(tokens: readonly number[], emulation?: ReferenceEmulation): Float64Array[] {
        const {states} = this.run(tokens, this.layerCount, emulation);
        return states.map((state) => multiply(this.output, this.normalized(state, this.outputNorm)));
    }

    /** The attention weights of a layer: for each head and position, one of each key up to the position. */
    attentionWeights(tokens: readonly number[], layer: number, emulation?: ReferenceEmulation): Float64Array[][] {
        return this.run(tokens, layer + 1, emulation).weights;
    }

    /** What a layer leaves in the residual stream: for each position, its elements. */
    hiddenStates(tokens: readonly number[], layer: number): Float64Array[] {
        return this.run(tokens, layer + 1).states;
    }

    private run(
        tokens: readonly number[], layerCount: number, emulation?: ReferenceEmulation
    ): {states: Float64Array[], weights: Float64Array[][]} {
        const {columns: width, values: embeddings} = this.embedding;
        let states: Float64Array[] = tokens.map((token) => embeddings.slice(token * width, (token + 1) * width));
        let weights: Float64Array[][] = [];
        let chosen: boolean[][][] | undefined;

        for (const [index, layer] of this.layers.slice(0, layerCount).entries()) {
            const inputs = states.map((state) => this.normalized(state, layer.attentionNorm));
            const queries = inputs.map((input, position) => this.rotated(multiply(layer.query, input), position));
            const keys = inputs.map((input, position) => this.rotated(multiply(layer.key, input), position));
            const values = inputs.map((input) => multiply(layer.value, input));

            weights = Array.from({length: this.headCount}, (_, head) => (
                queries.map((query, position) => this.softmaxWeights(query, keys, head, position))
            ));
            const source = emulation?.sourceLayer ?? Infinity;
            if (index === source)
                chosen = weights.map((rows, head) => rows.map((row, position) => chooseKeys(row, emulation!, head, position)));
            else if (index > source)
                weights = weights.map((rows, head) => rows.map((row, position) => (
                    emulated(row, emulation!, index, head, position, chosen![head]![position]!)
                )));

            states = states.map((state, position) => {
                const attended = add(state, multiply(layer.attentionOutput, this.attend(weights, values, position)));
                const input = this.normalized(attended, layer.feedForwardNorm);
                const gate = multiply(layer.gate, input);
                const hidden = multiply(layer.up, input).map((value, i) => value * silu(gate[i]!));
                return add(attended, multiply(layer.down, hidden));
            });
        }
        return {states, weights};
    }

    private softmaxWeights(query: Float64Array, keys: readonly Float64Array[], head: number, position: number): Float64Array {
        const size = this.headSize;
        const keyStart = this.keyValueHeadOf(head) * size;

        const scores = new Float64Array(position + 1);
        for (let key = 0; key <= position; key++) {
            const keyVector = keys[key]!;
            let score = 0;
            for (let i = 0; i < size; i++)
                score += query[head * size + i]! * keyVector[keyStart + i]!;
            scores[key] = score / Math.sqrt(size);
        }
        const most = Math.max(...scores);
        const exponentials = scores.map((score) => Math.exp(score - most));
        const sum = exponentials.reduce((a, b) => a + b);
        return exponentials.map((value) => value / sum);
    }

    /** All heads' outputs for a position. */
    private attend(weights: readonly Float64Array[][], values: readonly Float64Array[], position: number): Float64Array {
        const size = this.headSize;
        const attended = new Float64Array(this.headCount * size);
        for (let head = 0; head < this.headCount; head++) {
            const valueStart = this.keyValueHeadOf(head) * size;
            const row = weights[head]![position]!;
            for (let key = 0; key < row.length; key++) {
                const weight = row[key]!;
                const value = values[key]!;
                for (let i = 0; i < size; i++)
                    attended[head * size + i]! += weight * value[valueStart + i]!;
            }
        }
        return attended;
    }

    private keyValueHeadOf(head: number): number {
        return Math.floor(head * this.keyValueHeadCount / this.headCount);
    }

    /** RMS norm. */
    private normalized(state: Float64Array, weight: Float64Array): Float64Array {
        const meanSquare = state.reduce((sum, value) => sum + value ** 2, 0) / state.length;
        const scale = 1 / Math.sqrt(meanSquare + this.epsilon);
        return state.map((value, i) => value * scale * weight[i]!);
    }

    /** RoPE on neighbouring pairs, as GGUF files of this architecture have them. */
    private rotated(vector: Float64Array, position: number): Float64Array {
        const rotated = vector.slice();
        for (let start = 0; start < vector.length; start += this.headSize) {
            for (let i = 0; i < this.ropeSize; i += 2) {
                const angle = position * this.ropeBase ** (-i / this.ropeSize);
                const [x, y] = [vector[start + i]!, vector[start + i + 1]!];
                rotated[start + i] = x * Math.cos(angle) - y * Math.sin(angle);
                rotated[start + i + 1] = x * Math.sin(angle) + y * Math.cos(angle);
            }
        }
        return rotated;
    }
}

type LlamaMetadata = {
    block_count: number,
    embedding_length: number,
    attention: {
        head_count: number,
        head_count_kv?: number,
        key_length?: number,
        layer_norm_rms_epsilon: number
    },
    rope: {
        dimension_count?: number,
        freq_base?: number
    }
};

/** Which of the keys up to a position are chosen, of whose weights in the source layer this is the row. */
function chooseKeys(weights: Float64Array, {pattern, threshold, seed = 0}: ReferenceEmulation, head: number, position: number): boolean[] {
    const aboveThreshold = Array.from(weights, (weight, key) => weight > threshold && key !== position);
    if (pattern === "first-token")
        return aboveThreshold.map((_, key) => key === 0 && key !== position);
    if (pattern !== "random")
        return aboveThreshold;

    const row = mix(mix(mix(seed) ^ head) ^ position);
    const hashes = aboveThreshold.map((_, key) => mix(row ^ Math.imul(key, 0x9e3779b9)));
    const count = aboveThreshold.filter(Boolean).length;
    const others = hashes.filter((_, key) => key !== position).sort((a, b) => b - a);
    return hashes.map((hash, key) => key !== position && count > 0 && hash >= others[count - 1]!);
}

/** The last step of MurmurHash3. */
function mix(bits: number): number {
    bits ^= bits >>> 16;
    bits = Math.imul(bits, 0x85ebca6b);
    bits ^= bits >>> 13;
    bits = Math.imul(bits, 0xc2b2ae35);
    return (bits ^ bits >>> 16) >>> 0;
}

function emulated(
    weights: Float64Array, emulation: ReferenceEmulation, layer: number, head: number, position: number, chosen: readonly boolean[]
): Float64Array {
    const {strength} = emulation;
    const strengthHere = typeof strength === "number"
        ? strength
        : strength[position]!;
    const factor = 1 + strengthHere * emulation.gain(layer, head);

    const changed = weights.map((weight, key) => (
        emulation.pattern === "all" || chosen[key]
            ? weight * factor
            : weight
    ));
    const sum = emulation.normalize
        ? changed.reduce((a, b) => a + b)
        : 1;
    return changed.map((weight) => weight / sum);
}

function multiply({rows, columns, values}: Matrix, vector: Float64Array): Float64Array {
    const product = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
        let sum = 0;
        for (let column = 0; column < columns; column++)
            sum += values[row * columns + column]! * vector[column]!;
        product[row] = sum;
    }
    return product;
}

function add(a: Float64Array, b: Float64Array): Float64Array {
    return a.map((value, i) => value + b[i]!);
}

function silu(value: number): number {
    return value / (1 + Math.exp(-value));
}

function readValues(file: Buffer, {ggmlType, dimensions, fileOffset}: GgufTensorInfo): Float64Array {
    const start = Number(fileOffset);
    const count = dimensions.reduce<number>((product, size) => product * Number(size), 1);

    return Float64Array.from({length: count}, (_, i) => readWeight(file, ggmlType, start, i));
}
