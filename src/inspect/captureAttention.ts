import {contextOf} from "../emulation/emulateAttention.js";
import {AttentionCapture} from "./AttentionCapture.js";
import type {AttentionEmulationTarget} from "../emulation/emulateAttention.js";
import type {AttentionCaptureOptions} from "./options.js";

/**
 * Captures what each head of a model looks at, in every evaluation of the context from now on: with flash attention or without,
 * plain or emulated, as the model goes. Where the context has an emulation, weights are those after it. A capture begins anew where
 * tokens of the sequence were taken back, moved or replaced, see {@link AttentionCapture.read}. Make it between requests: batches of
 * one that runs are captured without their tokens, don't reach `onRows`, and are forgotten at the next request.
 *
 * Weights are reduced as soon as they are computed, a few rows at a time. What is kept is 8 bytes for each captured layer and head and
 * each token, besides the rows that are asked for. While it lasts, evaluation takes longer, and the logits stay the same.
 * @param target - a context, or an embedding, ranking or decision context; of a decision context that was created with
 * `parallelQuestions: 1`, as there is no way to name one of several sequences that it keeps to itself
 * @param options - see {@link AttentionCaptureOptions}
 * @throws {TypeError} if the target is no context of reattend's llama.cpp, or an option is unknown or has a value of the wrong type
 * @throws {RangeError} if an option is out of range
 * @throws {Error} if the context is disposed, has a capture already, or is set up in a way that does not allow one
 * @example
 * const capture = captureAttention(context, {layers: [0, 1], topK: 8});
 * const sequence = context.getSequence();
 * await sequence.evaluateWithoutGeneratingNewTokens(context.model.tokenize("Where is the key?"));
 * console.log(capture.read().get("layers.1.attention.firstTokenMass"));
 * capture.dispose();
 */
export function captureAttention(target: AttentionEmulationTarget, options: AttentionCaptureOptions = {}): AttentionCapture {
    const context = contextOf(target);
    return new AttentionCapture(context, options, context !== target);
}
