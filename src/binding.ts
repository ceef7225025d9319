import {createRequire} from "node:module";
import type {
    BatchingOptions, CustomBatchingPrioritizationStrategy, Llama, LlamaContext, LlamaContextSequence, LlamaLogLevel, LlamaModel, LlamaNuma,
    Token
} from "node-llama-cpp";
import * as nodeLlamaCpp from "node-llama-cpp";

/*
 * The native boundary: what TypeScript knows of the addon, and every internal of node-llama-cpp that we rely on.
 * node-llama-cpp is pinned exactly for these; test/model/internals.test.ts fails when one of them moves.
 */

/** node-llama-cpp's native context: native calls take it as a handle. */
export type AddonContext = {
    readonly __addonContext: never,

    /** Forgets all tokens of a sequence. */
    disposeSequence(sequenceId: number): void,

    /** Gives a sequence the state of another one; resolves to the position of the last token. */
    copySequenceStateFromOtherSequence(targetId: number, sourceId: number): Promise<number>
};

/** node-llama-cpp's native model, opaque to us. */
export type AddonModel = {readonly __addonModel: never};

/** The exports of our addon: node-llama-cpp's, of which these few matter here, and our own. */
export type Binding = {
    /** `undefined` while no backend is loaded; "rpc" is ours */
    getGpuType(): "cuda" | "vulkan" | "metal" | "rpc" | false | undefined,
    getGpuVramInfo(): {total: number, used: number, unifiedSize: number},
    getGpuDeviceInfo(): {deviceNames: string[]},
    getSupportsGpuOffloading(): boolean,
    getMathCores(): number,
    readonly AddonModel: new (path: string, options: object) => AddonModel,

    /** ours; node-llama-cpp's own builds lack it. Throws a TypeError if the context is of another addon. */
    readonly AddonAttentionEmulation?: new (context: AddonContext) => AddonAttentionEmulation,

    /** ours, as above */
    readonly AddonAttentionCapture?: new (context: AddonContext) => AddonAttentionCapture,

    /** ours. Throws a TypeError if the context is of another addon. */
    readonly AddonLogits: new (context: AddonContext) => AddonLogits,

    /** ours */
    readonly AddonRpcServers: new (addresses: readonly string[]) => AddonRpcServers,

    /** ours; serves until a signal ends the process, and returns only if it can't */
    serveRpc(address: string, threads: number): void
};

/** native/addon/AddonRpcServers.h */
export type AddonRpcServers = {
    /** To be called once. Rejects with a sentence that names the server. */
    connect(): Promise<void>,

    /** Before the model is loaded; these must outlive it. */
    offerTo(model: AddonModel): void,

    /** in bytes */
    getMemory(): {total: number, free: number},
    dispose(): void
};

/** native/addon/AddonAttentionEmulation.h. Any of its methods throws if the context is disposed, or a setting is refused. */
export type AddonAttentionEmulation = {
    getShape(): {layers: number, heads: number},
    enable(settings: AddonEmulationSettings): void,
    disable(): void,
    setStrength(strength: number): void,

    /** NaN: the context's strength again */
    setSequenceStrength(sequenceId: number, strength: number): void,
    getReport(): AddonLayerReport[],

    /** in bytes */
    getPatternSize(): number,

    /** how many decodes of the context could reuse the graph of the one before */
    getReusedGraphs(): number
};

export type AddonEmulationSettings = {
    strength: number,
    threshold: number,
    sourceLayer: number,

    /** for each layer, a gain for each head */
    gains: Float32Array,
    pattern: "early-layer" | "all" | "random" | "first-token",

    /** of the random pattern: 32 bits without sign */
    seed: number,
    normalize: boolean,
    dense: boolean
};

export type AddonLayerReport = {
    emulated: boolean,
    fused: boolean,
    reason?: string
};

/** native/addon/AddonAttentionCapture.h. Any of its methods throws if the context is disposed, or a setting is refused. */
export type AddonAttentionCapture = {
    /** whether each layer may have attention, and the largest number of query heads of any */
    getAttentionLayers(): {layers: boolean[], heads: number},
    enable(settings: AddonCaptureSettings): void,
    disable(): void,

    /** forgets what was captured */
    clear(): void,

    /** as `clear`; the sequence holds these tokens now, by position */
    restart(tokens: Int32Array): void,

    /** both of the same moment */
    read(): {measures: AddonMeasures, rows: AddonRows},

    /** of the rows that are kept; they are kept no longer */
    takeRows(): AddonRows
};

export type AddonCaptureSettings = {
    sequenceId: number,
    layers: Int32Array,
    heads: Int32Array,
    allQueries: boolean,

    /** positions, ascending */
    queries: Int32Array,
    sourceLayer: number,
    threshold: number,
    topK: number,
    weights: boolean,
    hiddenStates: boolean,

    /** number of tokens, 0: none */
    logitLens: number,

    /** of each token of the vocabulary */
    tokenClasses: Uint8Array
};

/** Shapes as in src/inspect/inspection.ts */
export type AddonMeasures = {
    layers: Int32Array,
    queries: number,
    tokens: Int32Array,
    entropy: Float32Array,
    firstTokenMass: Float32Array,
    agreement: Float32Array,
    keysPerRow: Float32Array,
    classMass: Float32Array,
    received: Float32Array,
    receivedBy: Uint32Array,

    /** whether the residual stream could be captured, if that was asked for */
    hasStates: boolean,

    /** memory that computing takes for the largest batch so far */
    scratchBytes: number
};

export type AddonRows = {
    layers: Int32Array,
    rowIndices: Uint32Array,

    /** width of a row of weights */
    tokenCount: number,
    topKeys: Uint32Array,
    topWeights: Float32Array,
    weights?: Float32Array,
    hiddenStates?: Float32Array,
    lensTokens?: Uint32Array,
    lensLogProbabilities?: Float32Array
};

/**
 * native/addon/AddonLogits.h. A row is an index of the last batch, as `mapLogits` is told; to be read before the next batch.
 * Its methods throw if there is no such row, or the context is disposed.
 */
export type AddonLogits = {
    /** -1 where a logit is no number */
    getLikeliestToken(row: number): Token | -1,

    /** natural logarithms */
    getLogProbabilities(row: number, tokens: Uint32Array): Float64Array,

    /** of the whole vocabulary */
    copyLogProbabilities(row: number): Float32Array,

    /** Kullback-Leibler divergence of the row from a reference that `copyLogProbabilities` gave, in nats */
    getDivergence(row: number, reference: Float32Array): {divergence: number, sameTop: boolean}
};

export type LlamaCreateOptions = {
    bindings: Binding,
    bindingPath: string,
    buildType: "localBuild" | "prebuilt",
    buildMetadata: {
        buildOptions: {
            gpu: "cuda" | "vulkan" | "metal" | false,
            llamaCpp: {repo: string, release: string},
            customCmakeOptions: Record<string, string>
        }
    },
    logLevel: LlamaLogLevel,
    logger: (level: LlamaLogLevel, message: string) => void,
    maxThreads: number | undefined,
    vramPadding: number | ((totalVram: number) => number),
    ramPadding: number | ((totalRam: number) => number),
    debug: boolean,
    numa: LlamaNuma,
    tempDir: false,
    skipLlamaInit: boolean,
    experimentalOptions: unknown
};

const require = createRequire(import.meta.url);

/**
 * Loads the addon anew, as node-llama-cpp does for each Llama instance: none shares its exports with another one. The logger and the log
 * level are the library's, so all instances of a process share them nevertheless.
 */
export function loadBinding(bindingPath: string): Binding {
    const resolved = require.resolve(bindingPath);
    delete require.cache[resolved];
    try {
        return require(resolved) as Binding;
    } finally {
        delete require.cache[resolved];
    }
}

/** `Llama._create`, with which node-llama-cpp's own `getLlama` ends. */
export function createLlama(options: LlamaCreateOptions): Promise<Llama> {
    return (nodeLlamaCpp.Llama as unknown as {_create(options: LlamaCreateOptions): Promise<Llama>})._create(options);
}

export function bindingOf(llama: Llama): Binding {
    return (llama as unknown as {_bindings: Binding})._bindings;
}

export function addonModelOf(model: LlamaModel): AddonModel {
    return (model as unknown as {_model: AddonModel})._model;
}

export function addonContextOf(context: LlamaContext): AddonContext {
    return (context as unknown as {_ctx: AddonContext})._ctx;
}

export function contextOfSequence(sequence: LlamaContextSequence): LlamaContext {
    return (sequence as unknown as {_context: LlamaContext})._context;
}

export function idOfSequence(sequence: LlamaContextSequence): number {
    return (sequence as unknown as {_sequenceId: number})._sequenceId;
}

/** The `LlamaContext` inside an embedding, ranking or decision context; `undefined` where there is none. */
export function heldContextOf(holder: object): LlamaContext | undefined {
    return (holder as {_llamaContext?: LlamaContext})._llamaContext;
}

/** Whether no live sequence has the id. */
export function isIdUnused(context: LlamaContext, sequenceId: number): boolean {
    return (context as unknown as {_unusedSequenceIds: number[]})._unusedSequenceIds.includes(sequenceId);
}

/** Calls back when ids have become unused: their sequences were disposed, or collected as garbage. */
export function onSequenceIdReclaimed(context: LlamaContext, callback: () => void): {dispose(): void} {
    const {_onReclaimUnusedSequenceId: event} = context as unknown as {
        _onReclaimUnusedSequenceId: {createListener(callback: () => void): {dispose(): void}}
    };
    return event.createListener(callback);
}

/** The part of a `LlamaContext` that gathers tokens of its sequences for the next batch. */
export type DecodeQueue = {
    /** Waits for its batch; what comes back is, for each row of logits, its position and what `mapLogits` made of it. */
    _decodeTokens<T>(
        request: DecodeRequest, mapLogits: (row: number, position: number) => T
    ): Promise<Array<[position: number, value: Awaited<T>]>>,

    /** in the order in which they were asked for */
    readonly _queuedDecodes: ReadonlyArray<{readonly sequenceId: number}>,

    /** asked once a step which queued tokens go into the next batch, and in which order */
    readonly _batchingOptions: {itemPrioritizationStrategy: PrioritizationStrategy}
};

type PrioritizationStrategy = NonNullable<BatchingOptions["itemPrioritizationStrategy"]>;

export type DecodeRequest = {
    readonly sequenceId: number,
    readonly tokens: readonly Token[],

    /** where the first of them stands in the sequence */
    readonly firstTokenSequenceIndex: number,

    /** of which tokens logits are wanted */
    readonly logits: readonly boolean[],

    /** Called when the request's tokens have been through a batch; the next batch waits for it. */
    afterBatchAction?(sequenceStateLength: number): void | Promise<void>
};

export function queueOf(context: LlamaContext): DecodeQueue {
    return context as unknown as DecodeQueue;
}

/** What gives node-llama-cpp's function for a strategy's name; it is not exported. */
export async function loadStrategyResolver(): Promise<(strategy: PrioritizationStrategy) => CustomBatchingPrioritizationStrategy> {
    const folder = "./evaluator/LlamaContext/utils/";
    const url = new URL(`${folder}resolveBatchItemsPrioritizationStrategy.js`, import.meta.resolve("node-llama-cpp"));
    const {resolveBatchItemsPrioritizationStrategy} = await import(url.href) as {
        resolveBatchItemsPrioritizationStrategy: (strategy: PrioritizationStrategy) => CustomBatchingPrioritizationStrategy
    };
    return resolveBatchItemsPrioritizationStrategy;
}

/** Calls back with each context of each model that is loaded from now on, before its creator sees it. */
export function onContextCreated(llama: Llama, callback: (context: LlamaContext) => void): void {
    const loadModel = llama.loadModel.bind(llama);
    llama.loadModel = async (options) => {
        const model = await loadModel(options);
        const createContext = model.createContext.bind(model);
        model.createContext = async (contextOptions) => {
            const context = await createContext(contextOptions);
            callback(context);
            return context;
        };
        return model;
    };
}
