import {addonContextOf, bindingOf, queueOf} from "../binding.js";
import type {LlamaContext, Token} from "node-llama-cpp";
import type {AddonContext, AddonLogits, DecodeQueue} from "../binding.js";

/**
 * The sequences of a context, by number, for texts that are evaluated side by side: what is asked for at the same time goes
 * through the model in the same batches, always cut the same way. That, and nothing else, decides how results are rounded.
 *
 * Nobody else may use sequences of the context.
 */
export class Slots {
    private readonly addonContext: AddonContext;
    private readonly logits: AddonLogits;
    private readonly queue: DecodeQueue;

    constructor(context: LlamaContext) {
        this.addonContext = addonContextOf(context);
        this.logits = new (bindingOf(context.model.llama).AddonLogits)(this.addonContext);
        this.queue = queueOf(context);
    }

    /**
     * Evaluates tokens behind those that a slot holds.
     * @param start - how many tokens the slot holds
     * @param rows - the tokens, by index and ascending, whose logits are wanted
     * @param read - what is wanted of them: it gets the logits, the row to ask them for, and the token's index
     */
    async evaluate<T>(
        slot: number, start: number, tokens: readonly Token[], rows: readonly number[],
        read: (logits: AddonLogits, row: number, index: number) => T
    ): Promise<T[]> {
        const wanted = new Set(rows);
        const request = {
            sequenceId: slot,
            tokens,
            firstTokenSequenceIndex: start,
            logits: tokens.map((_, index) => wanted.has(index))
        };
        const results = await this.queue._decodeTokens(request, (row, position) => {
            try {
                return {value: read(this.logits, row, position - start)};
            } catch (error) {
                return {error}; // thrown here, it would end the queue
            }
        });
        return results.map(([, result]) => {
            if ("error" in result)
                throw result.error;
            return result.value;
        });
    }

    /** Gives slots the tokens of another one, as if they had evaluated them. Nothing may be evaluated meanwhile. */
    async copy(source: number, targets: readonly number[]): Promise<void> {
        for (const target of targets)
            await this.addonContext.copySequenceStateFromOtherSequence(target, source);
    }

    /** Empties slots. Nothing may be evaluated meanwhile. */
    clear(slots: readonly number[]): void {
        for (const slot of slots)
            this.addonContext.disposeSequence(slot);
    }
}
