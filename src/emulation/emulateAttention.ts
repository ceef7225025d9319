import {addonContextOf, heldContextOf} from "../binding.js";
import {AttentionEmulation} from "./AttentionEmulation.js";
import {show} from "./show.js";
import type {LlamaContext, LlamaDecisionContext, LlamaEmbeddingContext, LlamaRankingContext} from "node-llama-cpp";
import type {AttentionProfile} from "../profile/profile.js";
import type {AttentionEmulationOptions} from "./options.js";

/** What {@link emulateAttention} can be used on. */
export type AttentionEmulationTarget = LlamaContext | LlamaEmbeddingContext | LlamaRankingContext | LlamaDecisionContext;

/**
 * Lets the later layers of a model attend more to the tokens that its first layer attended to: in every evaluation of the context
 * from now on, the weights of the keys that a head chose in the source layer are raised in each later layer.
 *
 * The method is Liao & Vargas, "Extending Token Computation for LLM Reasoning" (arXiv 2403.14932). It keeps nothing of its own in the
 * context's state, so saved states, reused prefixes and shifted contexts work as ever. What a sequence holds was evaluated as the emulation
 * was at that time, and stays so: call `await sequence.clearHistory()` before a prompt that is to be steered, or plain, as a whole.
 * @param target - a context, or an embedding, ranking or decision context
 * @param options - see {@link AttentionEmulationOptions}; the defaults are the authors' last values. Or a profile: see
 * {@link loadProfile}
 * @throws {TypeError} if the target is no context of reattend's llama.cpp, or an option is unknown or has a value of the wrong type
 * @throws {RangeError} if an option is out of range
 * @throws {ProfileError} if a profile is none, or is for another model: its `options` alone are taken on any model that they fit
 * @throws {Error} if the context is disposed, has an emulation already, or is set up in a way that does not allow one
 * @example
 * const emulation = emulateAttention(context, {strength: 0.5, schedule: "constant"});
 * console.log(emulation.report().kernel);
 */
export function emulateAttention(
    target: AttentionEmulationTarget, options: AttentionEmulationOptions | AttentionProfile = {}
): AttentionEmulation {
    return new AttentionEmulation(contextOf(target), options);
}

/** @internal */
export function contextOf(target: unknown): LlamaContext {
    if (target instanceof Object) {
        for (const context of [target as LlamaContext, heldContextOf(target)]) {
            if (context != null && addonContextOf(context) != null)
                return context;
        }
    }
    throw new TypeError(
        `The target is ${show(target)}, but must be a LlamaContext, or a LlamaEmbeddingContext, LlamaRankingContext or LlamaDecisionContext`
    );
}
