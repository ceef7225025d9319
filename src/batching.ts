import {loadStrategyResolver, onContextCreated, queueOf} from "./binding.js";
import type {Llama, LlamaContext, PrioritizedBatchItem} from "node-llama-cpp";

/**
 * Lets the sequences of a context go through the model together: one batch a step, whatever their number.
 *
 * node-llama-cpp fills the next batch as soon as it has told the sequences of the last one their tokens. The one that hears
 * last has not yet asked for its next token then, so it misses a batch, and from there on the sequences take turns. And as
 * they ask in a different order each time, llama.cpp can't reuse its graph. So after each batch this lets all of them ask, and
 * what was chosen for a batch goes into it in the order of the sequences' ids. What is chosen depends on who asked first, as ever.
 */
export async function batchSequencesTogether(llama: Llama): Promise<void> {
    const resolveStrategy = await loadStrategyResolver();
    onContextCreated(llama, (context) => {
        if (context.totalSequences > 1) {
            waitForAll(context);
            orderBatches(context, resolveStrategy);
        }
    });
}

function waitForAll(context: LlamaContext): void {
    const queue = queueOf(context);
    const decodeTokens = queue._decodeTokens.bind(context);

    queue._decodeTokens = (request, mapLogits) => decodeTokens({
        ...request,
        async afterBatchAction(length) {
            await request.afterBatchAction?.(length);
            await new Promise(setImmediate);
        }
    }, mapLogits);
}

function orderBatches(context: LlamaContext, resolveStrategy: Awaited<ReturnType<typeof loadStrategyResolver>>): void {
    const queue = queueOf(context);
    const {itemPrioritizationStrategy} = queue._batchingOptions;

    queue._batchingOptions.itemPrioritizationStrategy = ({items, size}) => {
        // items are those of the queue, one for one
        const sequences = new Map(items.map((item, index) => [item, queue._queuedDecodes[index]!.sequenceId]));
        const chosen = resolveStrategy(itemPrioritizationStrategy)({items, size});
        return fit(chosen, size).sort((a, b) => sequences.get(a.item)! - sequences.get(b.item)!);
    };
}

/** What node-llama-cpp takes of what was chosen: in that order, at least a token of each, until the batch is full. */
function fit(chosen: readonly PrioritizedBatchItem[], size: number): PrioritizedBatchItem[] {
    let left = size;
    return chosen.flatMap(({item, processAmount}) => {
        const amount = Math.min(Math.max(processAmount, 1), item.tokens.length, left);
        left -= amount;
        return amount > 0
            ? [{item, processAmount: amount}]
            : [];
    });
}
