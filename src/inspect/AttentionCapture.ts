import {addonContextOf, bindingOf, isIdUnused, onSequenceIdReclaimed, queueOf} from "../binding.js";
import {emulationOf} from "../emulation/AttentionEmulation.js";
import {ContextAttachment} from "../emulation/ContextAttachment.js";
import {liveSequence} from "./liveSequences.js";
import {resolveCaptureOptions, resolveSequence} from "./options.js";
import {buildAttention, buildRows} from "./rows.js";
import {classesOfVocabulary} from "./tokenClasses.js";
import type {LlamaContext, Token} from "node-llama-cpp";
import type {AddonAttentionCapture, DecodeQueue, DecodeRequest} from "../binding.js";
import type {AttentionCaptureOptions, ResolvedAttentionCaptureOptions} from "./options.js";
import type {CapturedAttention} from "./inspection.js";

/** The capture of each context that has one. */
const attached = new WeakMap<LlamaContext, AttentionCapture>();

/** Capture on one context, made by {@link captureAttention}. It lasts until it is disposed, or its context is. */
export class AttentionCapture extends ContextAttachment {
    /** The options that it was made with, defaults filled in. */
    readonly options: ResolvedAttentionCaptureOptions;

    private readonly addon: AddonAttentionCapture;
    private readonly onRows: AttentionCaptureOptions["onRows"];

    /** Layers that were asked for by number. */
    private readonly namedLayers: readonly number[];

    private readonly sequenceId: number;
    private readonly requests: Requests;

    /** Tokens of the sequence, by position, as the recording knows them. */
    private knownTokens: readonly Token[] = [];

    /** What `onRows` threw, and nobody has been told. */
    private failure?: {readonly error: unknown};

    /** @internal */
    constructor(context: LlamaContext, options: AttentionCaptureOptions, sequencesAreInner: boolean) {
        if (context.disposed)
            throw new Error("The context is disposed, so it can't be captured");

        const {AddonAttentionCapture} = bindingOf(context.model.llama);
        if (AddonAttentionCapture == null)
            throw new TypeError(
                "The context belongs to a llama.cpp without capture: get its Llama instance from reattend's getLlama, not from node-llama-cpp's"
            );
        if (attached.get(context)?.disposed === false)
            throw new Error("The context has a capture already: dispose it first");

        super(context, "capture", attached);
        this.addon = new AddonAttentionCapture(addonContextOf(context));

        const emulation = emulationOf(context)?.options;
        this.options = resolveCaptureOptions(options, this.addon.getAttentionLayers(), {
            sourceLayer: emulation?.sourceLayer ?? 0, threshold: emulation?.threshold ?? 0.01
        });
        this.onRows = options.onRows;
        this.namedLayers = options.layers == null || options.layers === "all"
            ? []
            : this.options.layers;
        this.sequenceId = resolveSequence(context, options.sequence, sequencesAreInner);

        const {layers, heads, queries} = this.options;
        this.addon.enable({
            ...this.options,
            sequenceId: this.sequenceId,
            layers: Int32Array.from(layers),
            heads: Int32Array.from(heads),
            allQueries: queries === "all",
            queries: Int32Array.from(queries === "all" ? [] : queries),
            tokenClasses: classesOfVocabulary(context.model)
        });
        const isOfOneSequence = options.sequence != null;
        this.requests = onRequests(
            queueOf(context), this.sequenceId,
            (request) => {
                this.throwFailure();
                this.followSequence(request);
            },
            this.onRows == null ? undefined : () => this.deliverRows()
        );
        this.attach(
            // ids are used again, by sequences that have nothing to do with those before
            onSequenceIdReclaimed(context, () => {
                if (isOfOneSequence && !this.disposed && isIdUnused(context, this.sequenceId))
                    this.dispose();
            }),
            this.requests
        );
    }

    /**
     * What was captured so far, by position in the sequence as it was when last evaluated. Where tokens were taken back, moved (as those
     * after erased ones do, also when a full context shifts) or replaced (as by a loaded state), what was captured begins with the
     * evaluation after that, as what was added up can't be taken apart.
     *
     * Waits for a running batch. Rows that `onRows` was given are not among it.
     * @throws {Error} if the capture is disposed, or what was asked for can't be captured in this architecture; or what `onRows` has thrown
     * @example
     * const capture = captureAttention(context, {topK: 4});
     * const sequence = context.getSequence();
     * await sequence.evaluateWithoutGeneratingNewTokens(context.model.tokenize("to be, or not to be"));
     * const {layers, entropy, get} = capture.read();
     * console.log(layers.length, entropy.length, get("layers.1.attention.topKeys"));
     */
    read(): CapturedAttention {
        this.ensureNotDisposed();
        this.throwFailure();

        const {measures, rows} = this.addon.read();
        const missing = this.namedLayers.find((layer) => !measures.layers.includes(layer));
        if (missing != null && measures.queries > 0)
            throw new Error(`Layer ${missing} can't be captured: it has no attention, or the architecture computes it in a way of its own`);
        if ((this.options.hiddenStates || this.options.logitLens > 0) && !measures.hasStates && measures.queries > 0)
            throw new Error(
                "hiddenStates and logitLens can't be captured: the architecture does not say what its layers leave in the residual stream"
            );
        return buildAttention(measures, rows, this.options);
    }

    /**
     * Forgets what was captured so far. Waits for a running batch.
     * @throws {Error} if the capture is disposed
     * @example
     * const capture = captureAttention(context);
     * capture.clear();
     * console.log(capture.read().queries); // 0
     */
    clear(): void {
        this.ensureNotDisposed();
        this.addon.clear();
    }

    /** @internal */
    protected override detach(): void {
        this.addon.disable();

        // that frees the memory only if no batch runs; where one does, and is the last one, nothing else would
        this.requests.whenIdle(() => {
            if (!this.context.disposed && attached.get(this.context) == null)
                this.addon.disable();
        });
    }

    /** Has the recording start anew where the sequence holds other tokens than those that it knows: they moved, or were replaced. */
    private followSequence({firstTokenSequenceIndex, tokens}: DecodeRequest): void {
        // guessed tokens may follow these; they are among the known ones
        const held = liveSequence(this.context, this.sequenceId)?.contextTokens ?? [];
        if (held.some((token, position) => token !== this.knownTokens[position])) {
            this.addon.restart(Int32Array.from(held));
            this.knownTokens = held;
        }
        this.knownTokens = [...this.knownTokens.slice(0, firstTokenSequenceIndex), ...tokens];
    }

    /** Never rejects: the sequence has been evaluated, whatever becomes of the rows. */
    private async deliverRows(): Promise<void> {
        if (this.disposed || this.failure != null)
            return;
        try {
            const rows = this.addon.takeRows();
            if (rows.rowIndices.length > 0)
                await this.onRows!(buildRows(rows, this.options));
        } catch (error) {
            this.failure = {error};
        }
    }

    private throwFailure(): void {
        if (this.failure == null)
            return;
        const {error} = this.failure;
        this.dispose();
        throw error;
    }
}

type Requests = {
    dispose(): void,

    /** Calls back when no request is under way any more, unless there is none now. */
    whenIdle(callback: () => void): void
};

/**
 * Calls back before tokens of a sequence are queued, and after each batch that has some of them: the next batch waits for that.
 */
function onRequests(
    queue: DecodeQueue, sequenceId: number, beforeRequest: (request: DecodeRequest) => void, afterBatch?: () => Promise<void>
): Requests {
    const own = Object.getOwnPropertyDescriptor(queue, "_decodeTokens"); // else it is the class's; to be put back as it is
    const decodeTokens = queue._decodeTokens.bind(queue);
    // the function stays where another one was put in front of it, and must not keep the capture alive then
    let callbacks: {beforeRequest: typeof beforeRequest, afterBatch: typeof afterBatch} | undefined = {beforeRequest, afterBatch};
    let underWay = 0;
    let onIdle: (() => void) | undefined;
    let calls = Promise.resolve();
    const callInTurn = async () => {
        calls = calls.then(callbacks?.afterBatch);
        await calls;
    };

    const decode: DecodeQueue["_decodeTokens"] = async (request, mapLogits) => {
        if (callbacks == null || request.sequenceId !== sequenceId)
            return await decodeTokens(request, mapLogits);

        callbacks.beforeRequest(request);
        if (callbacks?.afterBatch == null)
            return await decodeTokens(request, mapLogits);

        const result = await decodeTokens({
            ...request,
            async afterBatchAction(length) {
                await request.afterBatchAction?.(length);
                await callInTurn();
            }
        }, mapLogits);
        await callInTurn(); // a request is told its last batch's results before that batch's action is called
        return result;
    };
    const decodeAndCall: DecodeQueue["_decodeTokens"] = async (request, mapLogits) => {
        underWay++;
        try {
            return await decode(request, mapLogits);
        } finally {
            underWay--;
            if (underWay === 0) {
                onIdle?.();
                onIdle = undefined;
            }
        }
    };
    queue._decodeTokens = decodeAndCall;

    return {
        whenIdle(callback) {
            if (underWay > 0)
                onIdle = callback;
        },
        dispose() {
            callbacks = undefined;
            if (queue._decodeTokens !== decodeAndCall)
                return;
            if (own == null)
                delete (queue as Partial<DecodeQueue>)._decodeTokens;
            else
                Object.defineProperty(queue, "_decodeTokens", own);
        }
    };
}
