import {loadStrategyResolver, onContextCreated, queueOf} from "./binding.js";
import {show} from "./emulation/show.js";
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
        const chosen: unknown = resolveStrategy(itemPrioritizationStrategy)({items, size});
        checkChoice(chosen, sequences);
        return fit(chosen, size).sort((a, b) => sequences.get(a.item)! - sequences.get(b.item)!);
    };
}

/** Throws where node-llama-cpp would go on with what it can't use: whoever evaluates is told, as of what a strategy throws. */
function checkChoice(chosen: unknown, items: {has(item: unknown): boolean}): asserts chosen is PrioritizedBatchItem[] {
    if (!Array.isArray(chosen)) {
        throw new TypeError(
            `itemPrioritizationStrategy returned ${show(chosen)}, but must return an array of objects with item and processAmount`
        );
    }
    for (const entry of chosen as Array<Partial<PrioritizedBatchItem> | null | undefined>) {
        if (!items.has(entry?.item)) {
            throw new TypeError(
                `itemPrioritizationStrategy returned item ${show(entry?.item)}, but must return the very objects of items that it is given`
            );
        }
        const amount: unknown = entry!.processAmount;
        if (typeof amount !== "number")
            throw new TypeError(`itemPrioritizationStrategy returned processAmount ${show(amount)}, but must return a number`);
        if (Number.isNaN(amount))
            throw new RangeError("itemPrioritizationStrategy returned processAmount NaN, but must return a number of tokens");
    }
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
