import {addonContextOf, bindingOf, contextOfSequence, idOfSequence, isIdUnused, onSequenceIdReclaimed} from "../binding.js";
import {isProfile, makeProfile, optionsFor} from "../profile/profile.js";
import {ContextAttachment} from "./ContextAttachment.js";
import {checkStrength, resolveOptions} from "./options.js";
import {buildReport} from "./report.js";
import {show} from "./show.js";
import type {LlamaContext, LlamaContextSequence} from "node-llama-cpp";
import type {AddonAttentionEmulation} from "../binding.js";
import type {AttentionEmulationOptions, ResolvedAttentionEmulationOptions} from "./options.js";
import type {AttentionShape} from "./shape.js";
import type {AttentionProfile} from "../profile/profile.js";
import type {AttentionEmulationReport} from "./report.js";

/** The emulation of each context that has one. */
const attached = new WeakMap<LlamaContext, AttentionEmulation>();

/** @internal */
export function emulationOf(context: LlamaContext): AttentionEmulation | undefined {
    const emulation = attached.get(context);
    return emulation?.disposed === false
        ? emulation
        : undefined;
}

/** Emulation on one context, made by {@link emulateAttention}. It lasts until it is disposed, or its context is. */
export class AttentionEmulation extends ContextAttachment {
    /** The options that it was made with, defaults filled in. */
    readonly options: ResolvedAttentionEmulationOptions;

    private readonly addon: AddonAttentionEmulation;

    /** of each layer and head */
    private readonly gains: Float64Array;
    private readonly shape: AttentionShape;

    private currentStrength: number;
    private readonly sequencesWithStrength = new Set<number>();

    /** @internal */
    constructor(context: LlamaContext, options: AttentionEmulationOptions | AttentionProfile) {
        if (context.disposed)
            throw new Error("The context is disposed, so it can't be given an emulation");

        const {AddonAttentionEmulation} = bindingOf(context.model.llama);
        if (AddonAttentionEmulation == null)
            throw new TypeError(
                "The context belongs to a llama.cpp without emulation: get its Llama instance from reattend's getLlama, not from node-llama-cpp's"
            );
        if (emulationOf(context) != null)
            throw new Error("The context has an emulation already: change that one's strength, or dispose it first");

        super(context, "emulation", attached);
        this.addon = new AddonAttentionEmulation(addonContextOf(context));

        const shape = this.addon.getShape();
        const {options: resolved, gains} = resolveOptions(isProfile(options) ? optionsFor(options, context.model, shape) : options, shape);
        this.options = resolved;
        this.gains = gains;
        this.shape = shape;
        this.currentStrength = resolved.strength;

        this.addon.enable({
            strength: resolved.strength,
            threshold: resolved.threshold,
            sourceLayer: resolved.sourceLayer,
            gains: Float32Array.from(gains),
            pattern: resolved.pattern,
            seed: resolved.seed,
            normalize: resolved.normalize,
            dense: resolved.kernel === "dense"
        });
        this.attach(onSequenceIdReclaimed(context, () => this.forgetUnusedSequences()));
    }

    /**
     * The strength of all sequences that have none of their own: see {@link AttentionEmulationOptions.strength}.
     *
     * A change takes effect at the next batch that is evaluated, costs nothing, and is safe while the context evaluates. What was evaluated
     * before keeps its steering for as long as its sequence holds it: call `await sequence.clearHistory()` to compare strengths.
     * @throws {TypeError | RangeError} if it is not allowed; then nothing changes
     * @throws {Error} if the emulation is disposed
     * @example
     * const emulation = emulateAttention(context, {strength: 0.2});
     * emulation.strength = 0.5;
     * console.log(emulation.strength); // 0.5
     */
    get strength(): number {
        return this.currentStrength;
    }

    set strength(strength: number) {
        this.ensureNotDisposed();
        checkStrength(strength, this.changedGains);
        this.addon.setStrength(strength);
        this.currentStrength = strength;
    }

    /**
     * Gives a sequence a strength of its own, for as long as the sequence lives. Sequences of different strengths are evaluated
     * in one batch as ever. What the sequence holds already keeps the strength that it was evaluated with: see {@link strength}.
     * @param sequence - of the emulation's context
     * @param strength - `undefined`: the sequence has the context's strength again
     * @throws {TypeError | RangeError} if the strength is not allowed; then nothing changes
     * @throws {Error} if the sequence is disposed or of another context, or the emulation is disposed
     * @example
     * const emulation = emulateAttention(context, {strength: 0.2});
     * const sequence = context.getSequence();
     * emulation.setSequenceStrength(sequence, 0); // this one is answered by the plain model
     * emulation.setSequenceStrength(sequence, undefined);
     */
    setSequenceStrength(sequence: LlamaContextSequence, strength: number | undefined): void {
        this.ensureNotDisposed();

        const id = this.idOf(sequence);
        if (strength === undefined) {
            this.addon.setSequenceStrength(id, NaN);
            this.sequencesWithStrength.delete(id);
        } else {
            checkStrength(strength, this.changedGains);
            this.addon.setSequenceStrength(id, strength);
            this.sequencesWithStrength.add(id);
        }
    }

    /**
     * What is done in each layer: with which gain, by which kernel, and why a layer is left alone if it is.
     *
     * Prepares the evaluation of a batch, if nothing was evaluated since the emulation was made; waits for a running one then.
     * @throws {Error} if the emulation is disposed
     * @example
     * const emulation = emulateAttention(context);
     * for (const {index, gain, reason} of emulation.report().layers)
     *     console.log(index, gain, reason ?? "");
     */
    report(): AttentionEmulationReport {
        this.ensureNotDisposed();

        return buildReport({
            layers: this.addon.getReport(),
            strength: this.currentStrength,
            gains: this.gains,
            gainPerHead: typeof this.options.schedule !== "string" && typeof this.options.schedule[0] !== "number",
            patternBytes: this.addon.getPatternSize()
        });
    }

    /**
     * The emulation's options and its strength as it is now, as a profile of its model: to be saved, and used again with
     * {@link emulateAttention}.
     * @param found - how the options were found, if that is to be kept: anything that can be JSON
     * @throws {Error} if the emulation is disposed
     * @example
     * const emulation = emulateAttention(context, {strength: 0.2, pattern: "first-token"});
     * emulation.strength = 0.5;
     * const profile = emulation.createProfile({by: "hand"});
     * emulation.dispose();
     * console.log(emulateAttention(context, profile).strength); // 0.5
     */
    createProfile(found?: AttentionProfile["found"]): AttentionProfile {
        this.ensureNotDisposed();
        return makeProfile(this.context.model, this.shape, {...this.options, strength: this.currentStrength}, found);
    }

    /** @internal */
    protected override detach(): void {
        this.addon.disable();
    }

    /** Gains of the layers after the source layer. */
    private get changedGains(): Float64Array {
        return this.gains.subarray((this.options.sourceLayer + 1) * this.shape.heads);
    }

    private idOf(sequence: LlamaContextSequence): number {
        const id: unknown = (sequence as unknown) instanceof Object
            ? idOfSequence(sequence)
            : undefined;
        if (typeof id !== "number")
            throw new TypeError(`sequence is ${show(sequence)}, but must be a LlamaContextSequence`);
        if (contextOfSequence(sequence) !== this.context)
            throw new Error("The sequence belongs to another context than the emulation");
        if (sequence.disposed)
            throw new Error("The sequence is disposed");
        return id;
    }

    /** Ids of sequences are used again, by sequences that have nothing to do with those before. */
    private forgetUnusedSequences(): void {
        for (const id of this.sequencesWithStrength) {
            if (this.disposed || !isIdUnused(this.context, id))
                continue;
            this.addon.setSequenceStrength(id, NaN);
            this.sequencesWithStrength.delete(id);
        }
    }
}
