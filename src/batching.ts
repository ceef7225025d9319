import {onContextCreated, queueOf} from "./binding.js";
import type {Llama, LlamaContext} from "node-llama-cpp";

/**
 * Lets the sequences of a context go through the model together: one batch a step, whatever their number.
 *
 * node-llama-cpp fills the next batch as soon as it has told the sequences of the last one their tokens. The one that hears
 * last has not yet asked for its next token then, so it misses a batch, and from there on the sequences take turns. And as
 * they ask in a different order each time, llama.cpp can't reuse its graph. So after each batch this lets all of them ask, and
 * keeps their requests in the order of their ids.
 */
export function batchSequencesTogether(llama: Llama): void {
    onContextCreated(llama, (context) => {
        if (context.totalSequences > 1)
            waitForAll(context);
    });
}

function waitForAll(context: LlamaContext): void {
    const queue = queueOf(context);
    const decodeTokens = queue._decodeTokens.bind(context);

    queue._decodeTokens = (request, mapLogits) => {
        const result = decodeTokens({
            ...request,
            async afterBatchAction(length) {
                await request.afterBatchAction?.(length);
                await new Promise(setImmediate);
            }
        }, mapLogits);
        queue._queuedDecodes.sort((a, b) => a.sequenceId - b.sequenceId);
        return result;
    };
}
