import {DataError} from "./item.js";
import {Slots} from "./Slots.js";
import {tokenizeFromStart} from "./tokens.js";
import type {LlamaContext, LlamaModel, LlamaText, Token} from "node-llama-cpp";
import type {OpenReply} from "./conversation.js";

export type PreparedPrompt = {
    tokens: Token[],
    stop: Array<{tokens: Token[], text: string | undefined}>
};

/** Its question is named where something goes wrong. */
type NamedPrompt = PreparedPrompt & {item?: {id: string}};

export type Generation = {
    text: string,

    /** how many tokens were generated, without the one that ends a text */
    tokens: number,

    /** `"length"`: it was not at its end yet */
    stopReason: "end" | "length"
};

export function preparePrompt(model: LlamaModel, {text, stopTriggers}: OpenReply): PreparedPrompt {
    return {
        tokens: tokenizeFromStart(model, [text]),
        stop: stopTriggers.map((trigger) => ({tokens: trigger.tokenize(model.tokenizer), text: plainTextOf(trigger)}))
    };
}

/**
 * Goes on with prompts, always with the likeliest token, so many side by side as the context has sequences. All of a group end
 * before the next group begins: the same prompts in the same order give the same texts.
 * @param context - for this only: its sequences must not be in use
 */
export async function generateGreedily(
    context: LlamaContext, prompts: readonly NamedPrompt[],
    {maxTokens, signal, onToken}: {maxTokens: number, signal?: AbortSignal, onToken?: () => void}
): Promise<Generation[]> {
    const slots = new Slots(context);
    const generations: Generation[] = [];
    for (let start = 0; start < prompts.length; start += context.totalSequences)
        generations.push(...await generateGroup(prompts.slice(start, start + context.totalSequences)));
    return generations;

    async function generateGroup(group: readonly NamedPrompt[]): Promise<Generation[]> {
        const {model} = context;
        const states = group.map(({tokens, stop, item}, slot) => ({
            slot, stop, item, length: 0, next: tokens, generated: [] as Token[], stopReason: undefined as Generation["stopReason"] | undefined
        }));

        try {
            for (let active = states; active.length > 0; active = active.filter(({stopReason}) => stopReason == null)) {
                signal?.throwIfAborted();
                await Promise.all(active.map(async (state) => {
                    const {slot, length, next, generated, stop, item} = state;
                    const [token] = await slots.evaluate(slot, length, next, [next.length - 1], (logits, row) => (
                        logits.getLikeliestToken(row)
                    ));
                    if (token == null || token === -1)
                        throw new DataError(`the model's logits are not numbers${item == null ? "" : ` at the question ${item.id}`}`);

                    state.length += next.length;
                    state.next = [token];
                    if (!model.isEogToken(token)) {
                        generated.push(token);
                        onToken?.();
                    }
                    if (model.isEogToken(token) || stop.some((trigger) => endsWith(model, generated, trigger)))
                        state.stopReason = "end";
                    else if (generated.length >= maxTokens || state.length >= context.contextSize)
                        state.stopReason = "length";
                }));
            }
        } finally {
            slots.clear(states.map(({slot}) => slot));
        }

        return states.map(({generated, stop, stopReason}) => ({
            text: withoutStop(model, generated, stop), tokens: generated.length, stopReason: stopReason!
        }));
    }
}

/** A trigger may be cut into other tokens than those that the model writes it with, so its text counts as well. */
function endsWith(model: LlamaModel, generated: readonly Token[], {tokens, text}: PreparedPrompt["stop"][number]): boolean {
    const end = generated.slice(-tokens.length);
    return tokens.length > 0 && tokens.length === end.length && tokens.every((token, index) => token === end[index]) ||
        text != null && model.detokenize(generated.slice(-tokens.length - 4)).includes(text);
}

function withoutStop(model: LlamaModel, generated: readonly Token[], stop: PreparedPrompt["stop"]): string {
    const text = model.detokenize(generated);
    const ends = stop
        .filter((trigger) => trigger.text != null && endsWith(model, generated, trigger))
        .map((trigger) => text.lastIndexOf(trigger.text!))
        .filter((index) => index >= 0);
    return text.slice(0, Math.min(text.length, ...ends));
}

/** The text of a trigger that has no special tokens. */
function plainTextOf(trigger: LlamaText): string | undefined {
    return trigger.values.length > 0 && trigger.values.every((value) => typeof value === "string")
        ? trigger.values.join("")
        : undefined;
}
