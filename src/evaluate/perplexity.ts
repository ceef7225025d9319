import {underArm} from "./arms.js";
import {DataError} from "./item.js";
import {Slots} from "./Slots.js";
import {tokenizeFromStart} from "./tokens.js";
import type {LlamaContext, LlamaModel, Token} from "node-llama-cpp";
import type {Arm} from "./arms.js";
import type {TextItem} from "./item.js";

/** A piece of a text. Its second half is scored, so that each token has the first half or more before it. */
export type TextWindow = {
    id: string,
    subject: string,
    tokens: Token[]
};

export type WindowScore = {
    /** how many tokens were scored */
    count: number,

    /** the sum of their negative log-probabilities, natural logarithm */
    loss: number,

    /** the sum of the Kullback-Leibler divergences from the plain model, in nats; 0 for the plain model itself */
    divergence: number,

    /** each of these divergences, to six digits; none for the plain model */
    divergences: number[],

    /** at how many of them the likeliest token is the plain model's */
    sameTop: number
};

/** As many rows of logits are kept at a time, for all arms to compare theirs with. */
const pieceLength = 128;

/**
 * Cuts texts into windows as llama.cpp's perplexity tool does: one after another, each begun anew, what is left over at the end
 * is dropped. A text that is shorter than a window is one.
 */
export function cutIntoWindows(
    model: LlamaModel, texts: readonly TextItem[], length: number
): {windows: TextWindow[], droppedTokens: number} {
    const {bos, shouldPrependBosToken} = model.tokens;
    const windows: TextWindow[] = [];
    let droppedTokens = 0;
    for (const {id, subject, text} of texts) {
        const all = tokenizeFromStart(model, [text]);
        const used = all.length < length
            ? all.length
            : all.length - all.length % length;
        droppedTokens += all.length - used;
        for (let start = 0; start < used; start += length) {
            const tokens = all.slice(start, start + length);
            if (tokens.length - 1 <= Math.floor(tokens.length / 2)) { // no token of it would be scored
                droppedTokens += tokens.length;
                continue;
            }
            if (shouldPrependBosToken && bos != null)
                tokens[0] = bos;
            windows.push({id: `${id}:${start}`, subject, tokens});
        }
    }
    return {windows, droppedTokens};
}

/**
 * How well each arm foretells a window, and how far it is from the first arm, which must be the plain model.
 * @param context - for this only, with a sequence for each arm
 * @throws {DataError} naming the window at which the model gives no numbers
 */
export async function scoreWindow(
    context: LlamaContext, {id, tokens}: TextWindow, arms: readonly Arm[], signal?: AbortSignal
): Promise<WindowScore[]> {
    const slots = new Slots(context);
    const scores = arms.map((): WindowScore => ({count: 0, loss: 0, divergence: 0, divergences: [], sameTop: 0}));
    const firstScored = Math.floor(tokens.length / 2);

    try {
        for (let start = 0; start < tokens.length - 1; start += pieceLength) {
            const piece = tokens.slice(start, Math.min(start + pieceLength, tokens.length - 1));
            // each token tells the probability of the next
            const rows = Array.from(piece.keys()).filter((index) => start + index >= firstScored);
            const references = new Map<number, Float32Array>();
            for (const [slot, arm] of arms.entries()) {
                signal?.throwIfAborted();
                const score = scores[slot]!;
                await underArm(context, arm, () => slots.evaluate(slot, start, piece, rows, (logits, row, index) => {
                    const next = Uint32Array.of(tokens[start + index + 1]!);
                    score.count++;
                    score.loss -= logits.getLogProbabilities(row, next)[0]!;
                    if (slot === 0) {
                        references.set(index, logits.copyLogProbabilities(row));
                        score.sameTop++;
                        return;
                    }
                    const {divergence, sameTop} = logits.getDivergence(row, references.get(index)!);
                    score.divergence += divergence;
                    score.divergences.push(Number(divergence.toPrecision(6)));
                    score.sameTop += Number(sameTop);
                }));
                if (Number.isNaN(score.loss))
                    throw new DataError(`the model's logits are not numbers at the text ${id}`);
            }
        }
    } finally {
        slots.clear(Array.from(arms.keys()));
    }
    return scores;
}
