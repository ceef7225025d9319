import {createRequire} from "node:module";
import path from "node:path";
import {emulateAttention} from "../emulation/emulateAttention.js";
import {captureAttention} from "./captureAttention.js";
import {spread} from "./packInspection.js";
import {classOfToken} from "./tokenClasses.js";
import type {LlamaContext, LlamaContextSequence, LlamaModel, Token} from "node-llama-cpp";
import type {AttentionEmulationOptions} from "../emulation/options.js";
import type {AttentionProfile} from "../profile/profile.js";
import type {CapturedRows, InspectedRows, Inspection} from "./inspection.js";

const {version} = createRequire(import.meta.url)("../../package.json") as {version: string};

export type InspectAttentionOptions = {
    emulation?: AttentionEmulationOptions | AttentionProfile,

    /** Default: all. */
    layers?: readonly number[],
    heads?: readonly number[],
    signal?: AbortSignal,

    /** is told which of the two runs goes on, and how much of it is done */
    onProgress?: (run: "plain" | "steered", fraction: number) => void
};

/** Kept keys of a run, of 8 bytes each: twice as many as the page shows leave it a choice. */
const mostKeys = 10_000_000;
const keysPerRow = {most: 32, least: 8};

/**
 * Evaluates a text twice, with emulation and without, and captures what each head looks at. The context must be empty, and is afterwards.
 * @throws {RangeError} where the tokens don't fit in the context
 * @throws whatever `emulateAttention` and `captureAttention` throw; the signal's reason once that is aborted
 */
export async function inspectAttention(
    context: LlamaContext, sequence: LlamaContextSequence, tokens: readonly Token[], options: InspectAttentionOptions = {}
): Promise<Inspection> {
    if (tokens.length > context.contextSize)
        throw new RangeError(`The text has ${tokens.length} tokens, but the context has room for ${context.contextSize} only`);

    const {model} = context;
    using emulation = emulateAttention(context, options.emulation);
    const modelLayers = emulation.report().layers.length;
    const steered = await run("steered");
    const {options: emulationOptions} = emulation;
    emulation.dispose();
    const plain = await run("plain");

    const {general} = model.fileInfo.metadata;
    return {
        version: 1,
        reattend: version,
        model: {
            file: path.basename(model.filename ?? ""),
            name: general.name ?? path.basename(model.filename ?? "model", ".gguf"),
            architecture: general.architecture,
            layers: modelLayers,
            heads: plain.modelHeads
        },
        options: {
            strength: emulationOptions.strength,
            threshold: emulationOptions.threshold,
            sourceLayer: emulationOptions.sourceLayer,
            schedule: emulationOptions.schedule,
            pattern: emulationOptions.pattern,
            normalize: emulationOptions.normalize
        },
        tokens: tokens.map((token, i) => ({
            id: token,
            // some tokenizers leave out a text's first space
            text: model.detokenize([token], true, tokens.slice(Math.max(i - 4, 0), i)) || model.detokenize([token, token], true),
            class: classOfToken(model, token)
        })),
        plain: plain.attention,
        steered: steered.attention,
        rows: {layers: plain.rows.layers, topK: plain.rows.topK, plain: plain.rows, steered: steered.rows}
    };

    async function run(name: "plain" | "steered") {
        const {threshold, sourceLayer} = emulation.options;
        const {layers = "all", heads = "all", signal, onProgress} = options;
        // made to see what is there to capture
        const probe = captureAttention(context, {sequence, layers, heads});
        const rows = new RowCollector(probe.options.layers, probe.options.heads.length, tokens.length);
        probe.dispose();
        const modelHeads = headsOf(context, sequence);

        using capture = captureAttention(context, {
            sequence, layers, heads, threshold, sourceLayer, topK: rows.topK, onRows: (batch) => rows.add(batch)
        });
        try {
            for (let start = 0; start < tokens.length; start += context.batchSize) {
                signal?.throwIfAborted();
                onProgress?.(name, start / tokens.length);
                await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(start, start + context.batchSize));
            }
            return {attention: capture.read(), rows, modelHeads};
        } finally {
            await sequence.clearHistory();
        }
    }
}

function headsOf(context: LlamaContext, sequence: LlamaContextSequence): number {
    using capture = captureAttention(context, {sequence});
    return capture.options.heads.length;
}

/** A text as tokens, begun as the model wants texts to begin. */
export function tokenizeText(model: LlamaModel, text: string): Token[] {
    const tokens = model.tokenize(text);
    const {bos, shouldPrependBosToken} = model.tokens;
    return bos != null && shouldPrependBosToken && tokens[0] !== bos
        ? [bos, ...tokens]
        : tokens;
}

/** Takes the rows of each batch in, of so many layers and so many keys that they fit in memory. */
class RowCollector implements InspectedRows {
    readonly layers: readonly number[];
    readonly topK: number;
    readonly topKeys: Uint32Array;
    readonly topWeights: Float32Array;

    constructor(layers: readonly number[], private readonly heads: number, private readonly tokens: number) {
        const rowsPerLayer = heads * tokens;
        const fitting = Math.floor(mostKeys / (rowsPerLayer * layers.length));
        this.topK = Math.min(Math.max(fitting, keysPerRow.least), keysPerRow.most, tokens);
        this.layers = spread(layers, Math.max(Math.floor(mostKeys / (rowsPerLayer * this.topK)), 1));

        const size = this.layers.length * rowsPerLayer * this.topK;
        this.topKeys = new Uint32Array(size).fill(0xffffffff);
        this.topWeights = new Float32Array(size);
    }

    add({layers, rowIndices, topKeys, topWeights}: CapturedRows): void {
        const {heads, tokens, topK} = this;
        for (const [layerTo, layer] of this.layers.entries()) {
            const layerFrom = layers.indexOf(layer);
            for (let head = 0; head < heads && layerFrom >= 0; head++) {
                for (const [i, row] of rowIndices.entries()) {
                    const from = ((layerFrom * heads + head) * rowIndices.length + i) * topK;
                    const to = ((layerTo * heads + head) * tokens + row) * topK;
                    this.topKeys.set(topKeys.subarray(from, from + topK), to);
                    this.topWeights.set(topWeights.subarray(from, from + topK), to);
                }
            }
        }
    }
}
