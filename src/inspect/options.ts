import {contextOfSequence, idOfSequence} from "../binding.js";
import {show} from "../emulation/show.js";
import type {LlamaContext, LlamaContextSequence} from "node-llama-cpp";
import type {CapturedRows} from "./inspection.js";

/** What a capture keeps. */
export type AttentionCaptureOptions = {
    /**
     * The sequence that is captured; tokens of others are left out. Tokens that it holds already count as keys only.
     *
     * Defaults to the only one of a context that has one; must be given for others. A decision context gives nobody its sequences: create
     * it with `parallelQuestions: 1`, then it has but one.
     */
    sequence?: LlamaContextSequence,

    /**
     * Indices of the layers to capture.
     *
     * Defaults to `"all"` that have attention.
     */
    layers?: "all" | readonly number[],

    /**
     * Indices of the query heads to capture, in each layer.
     *
     * Defaults to `"all"`.
     */
    heads?: "all" | readonly number[],

    /**
     * Positions of the query rows of which `topK`, `weights`, `hiddenStates` and `logitLens` are kept. The measures are of all rows.
     * All that is kept at a time must not take more than 1 GiB; reading says so if it would.
     *
     * Defaults to `"all"`.
     */
    queries?: "all" | readonly number[],

    /**
     * How many of a row's strongest keys are kept: 8 bytes each.
     *
     * Defaults to `0`.
     */
    topK?: number,

    /**
     * Whether whole rows of weights are kept: 4 bytes for each layer, head, kept row and token of the sequence. For long texts, choose
     * some `queries`, or take the rows away with `onRows`.
     *
     * Defaults to `false`.
     */
    weights?: boolean,

    /**
     * Whether the residual stream after each captured layer is kept: 4 bytes for each layer, kept row and element.
     *
     * Defaults to `false`.
     */
    hiddenStates?: boolean,

    /**
     * How many of the most probable next tokens are kept after each captured layer, as if the model ended there: the model's final
     * norm and output matrix are applied to the residual stream. Takes as much time as the logits of all kept rows, for each layer.
     * `false`: none; `true`: 5.
     *
     * Defaults to `false`.
     */
    logitLens?: boolean | number,

    /**
     * The layer whose weights give the pattern that `agreement` is measured with.
     *
     * Defaults to that of the context's emulation, or `0`.
     */
    sourceLayer?: number,

    /**
     * Weights above this count, in the pattern, in `keysPerRow` and in `receivedBy`. Between `0` and `1`, exclusive.
     *
     * Defaults to that of the context's emulation, or `0.01`.
     */
    threshold?: number,

    /**
     * Is given the kept rows of each batch right after it was evaluated, before the next one is: they are not kept any longer then, so
     * that a text of any length needs the memory of one batch. Their `weights` are `tokenCount` wide, which grows from batch to batch.
     *
     * The next batch waits for a promise that it returns. That must not wait for the context in turn, as both would wait for ever:
     * evaluating, erasing tokens, loading and saving states, and disposing the context come after the batch. Disposing the capture
     * does not.
     *
     * If it throws, or the promise rejects, it is not called again; the sequence's next evaluation, or `read()`, throws the same and
     * ends the capture.
     */
    onRows?: (rows: CapturedRows) => void | Promise<void>
};

/** The options of a capture, defaults filled in. */
export type ResolvedAttentionCaptureOptions = Readonly<{
    layers: readonly number[],
    heads: readonly number[],
    queries: "all" | readonly number[],
    topK: number,
    weights: boolean,
    hiddenStates: boolean,
    logitLens: number,
    sourceLayer: number,
    threshold: number
}>;

const names = [
    "sequence", "layers", "heads", "queries", "topK", "weights", "hiddenStates", "logitLens", "sourceLayer", "threshold", "onRows"
];

type Shape = {
    /** whether each layer has attention */
    layers: readonly boolean[],
    heads: number
};

/**
 * Fills in the defaults and checks everything but the sequence.
 * @throws {TypeError} where an option is unknown or has a value of the wrong type
 * @throws {RangeError} where a value is out of range
 */
export function resolveCaptureOptions(
    options: unknown, shape: Shape, defaults: {sourceLayer: number, threshold: number}
): ResolvedAttentionCaptureOptions {
    if (options === null || typeof options !== "object" || Array.isArray(options))
        throw new TypeError(`The options are ${show(options)}, but must be an object`);
    for (const name of Object.keys(options)) {
        if (!names.includes(name))
            throw new TypeError(`${name} is not an option; the options are ${names.join(", ")}`);
    }

    const {
        layers = "all", heads = "all", queries = "all", topK = 0, weights = false, hiddenStates = false, logitLens = false,
        sourceLayer = defaults.sourceLayer, threshold = defaults.threshold, onRows
    } = options as AttentionCaptureOptions;

    const layerCount = shape.layers.length;
    const resolved: ResolvedAttentionCaptureOptions = {
        layers: layers === "all"
            ? shape.layers.flatMap((hasAttention, layer) => hasAttention ? [layer] : [])
            : indices("layers", layers, `the model has ${layerCount} layers`, layerCount),
        heads: indices("heads", heads === "all" ? numbersTo(shape.heads) : heads, `the model has ${shape.heads} query heads`, shape.heads),
        queries: queries === "all"
            ? queries
            : indices("queries", queries, "they are positions in the sequence", 2 ** 31),
        topK: wholeNumber("topK", topK, 0, 65536),
        weights: flag("weights", weights),
        hiddenStates: flag("hiddenStates", hiddenStates),
        logitLens: typeof logitLens === "boolean"
            ? (logitLens ? 5 : 0)
            : wholeNumber("logitLens", logitLens, 0, 65536, "true, false or a number"),
        sourceLayer: wholeNumber("sourceLayer", sourceLayer, 0, layerCount - 1),
        threshold: checkThreshold(threshold)
    };

    const without = resolved.layers.find((layer) => !shape.layers[layer]);
    if (without != null)
        throw new RangeError(`layers has ${without}, but that layer has no attention`);
    if (onRows !== undefined && typeof onRows !== "function")
        throw new TypeError(`onRows is ${show(onRows)}, but must be a function`);
    if (onRows !== undefined && resolved.topK === 0 && !resolved.weights && !resolved.hiddenStates && resolved.logitLens === 0)
        throw new TypeError("onRows is given, but no rows are kept: ask for topK, weights, hiddenStates or logitLens");
    return Object.freeze(resolved);
}

/**
 * The id of the sequence to capture.
 * @param areInner - whether the context is inside another object, which gives nobody its sequences
 * @throws {TypeError | Error} if there is none, or it can't be used
 */
export function resolveSequence(context: LlamaContext, sequence: unknown, areInner: boolean): number {
    if (sequence === undefined) {
        if (context.totalSequences > 1 && areInner) {
            throw new TypeError(
                `A decision context of ${context.totalSequences} sequences can't be captured, as it gives nobody one of them: ` +
                "create it with parallelQuestions: 1"
            );
        }
        if (context.totalSequences > 1)
            throw new TypeError(`sequence is not given, but must be, as the context has ${context.totalSequences} sequences`);
        return 0;
    }

    const id: unknown = sequence instanceof Object
        ? idOfSequence(sequence as LlamaContextSequence)
        : undefined;
    if (typeof id !== "number")
        throw new TypeError(`sequence is ${show(sequence)}, but must be a LlamaContextSequence`);

    const live = sequence as LlamaContextSequence;
    if (contextOfSequence(live) !== context)
        throw new Error("The sequence belongs to another context than the capture");
    if (live.disposed)
        throw new Error("The sequence is disposed");
    return id;
}

function numbersTo(end: number): number[] {
    return Array.from({length: end}, (_, i) => i);
}

function indices(name: string, values: unknown, range: string, end: number): number[] {
    if (!Array.isArray(values))
        throw new TypeError(`${name} is ${show(values)}, but must be "all" or an array of numbers`);
    if (values.length === 0 && name !== "queries")
        throw new RangeError(`${name} is empty, but must have one entry at least`);
    for (const value of values as unknown[]) {
        if (typeof value !== "number")
            throw new TypeError(`${name} has ${show(value)}, but must have numbers only`);
        if (!Number.isInteger(value) || value < 0 || value >= end)
            throw new RangeError(`${name} has ${value}, but must have whole numbers from 0 to ${end - 1}: ${range}`);
    }
    return [...new Set(values as number[])].sort((a, b) => a - b);
}

function wholeNumber(name: string, value: unknown, least: number, most: number, allowed = "a number"): number {
    if (typeof value !== "number")
        throw new TypeError(`${name} is ${show(value)}, but must be ${allowed}`);
    if (!Number.isInteger(value) || value < least || value > most)
        throw new RangeError(`${name} is ${value}, but must be a whole number from ${least} to ${most}`);
    return value;
}

function flag(name: string, value: unknown): boolean {
    if (typeof value !== "boolean")
        throw new TypeError(`${name} is ${show(value)}, but must be true or false`);
    return value;
}

function checkThreshold(threshold: unknown): number {
    if (typeof threshold !== "number")
        throw new TypeError(`threshold is ${show(threshold)}, but must be a number`);
    const rounded = Math.fround(threshold);
    if (!(rounded > 0 && rounded < 1))
        throw new RangeError(`threshold is ${threshold}, but must be between 0 and 1, exclusive`);
    return threshold;
}
