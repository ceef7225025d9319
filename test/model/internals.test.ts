// What we use of node-llama-cpp that is not in its types. When one of these fails, node-llama-cpp has moved something.
import test from "ava";
import {getLlama, Llama, LlamaEmbeddingContext, LlamaLogLevel, LlamaRankingContext} from "reattend";
import {
    addonContextOf, addonModelOf, bindingOf, contextOfSequence, heldContextOf, idOfSequence, isIdUnused,
    loadStrategyResolver, onContextCreated, onSequenceIdReclaimed, queueOf
} from "#dist/binding.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import type {BatchItem, LlamaContext, Token} from "reattend";

test("Llama._create takes a binding", (t) => {
    t.is(typeof (Llama as unknown as {_create: unknown})._create, "function");
});

test("Llama._bindings: the addon's exports", (t) => {
    const binding = bindingOf(oracleModel.llama);
    t.is(binding.getGpuType(), false);
    t.true(binding.getMathCores() >= 1);
});

test("LlamaModel._model: the native model", (t) => {
    t.is(addonModelOf(oracleModel).constructor.name, "AddonModel");
});

test("LlamaContext._ctx: the native context; LlamaContextSequence._context and ._sequenceId", async (t) => {
    const context = await createContext({sequences: 2});
    t.is(addonContextOf(context).constructor.name, "AddonContext");

    const sequences = [context.getSequence(), context.getSequence()];
    t.true(sequences.every((sequence) => contextOfSequence(sequence) === context));
    t.deepEqual(sequences.map(idOfSequence).sort(), [0, 1]);
    await context.dispose();
});

test("LlamaContext._unusedSequenceIds and ._onReclaimUnusedSequenceId: which ids are in use", async (t) => {
    const context = await createContext({sequences: 1});
    const sequence = context.getSequence();
    const id = idOfSequence(sequence);
    t.false(isIdUnused(context, id));

    let reclaimed = 0;
    const listener = onSequenceIdReclaimed(context, () => reclaimed++);
    void sequence.dispose();
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.true(isIdUnused(context, id));
    t.true(reclaimed > 0);
    listener.dispose();
    await context.dispose();
});

test("LlamaEmbeddingContext._llamaContext", async (t) => {
    const holder = await oracleModel.createEmbeddingContext({contextSize: 256});
    t.true(holder instanceof LlamaEmbeddingContext);
    t.is(addonContextOf(heldContextOf(holder)!).constructor.name, "AddonContext");
    await holder.dispose();
});

test("LlamaRankingContext and LlamaDecisionContext keep their context as _llamaContext", (t) => {
    // a model that ranks is not at hand, so a stand-in takes the constructor's way
    const held = {getSequence: () => ({}), onDispose: {createListener: () => ({dispose() {}})}};
    const Ranking = LlamaRankingContext as unknown as new (options: object) => object;
    t.is(heldContextOf(new Ranking({_llamaContext: held})), held as never);
});

test("Llama.loadModel and LlamaModel.createContext make all contexts; LlamaContext._decodeTokens queues their tokens", async (t) => {
    const created: LlamaContext[] = [];
    const llama = await getLlama({gpu: false, logLevel: LlamaLogLevel.error});
    onContextCreated(llama, (context) => created.push(context));
    const model = await llama.loadModel({modelPath: oracleModelPath});
    const context = await model.createContext({contextSize: 256, sequences: 3}); // more than are in use: the queue waits
    const embedding = await model.createEmbeddingContext({contextSize: 256});
    t.deepEqual(created, [context, heldContextOf(embedding)!]);

    const queue = queueOf(context);
    const waiting = [context.getSequence(), context.getSequence()].reverse()
        .map((sequence) => sequence.evaluateWithoutGeneratingNewTokens([5 as Token]));
    for (let i = 0; i < 100; i++)
        await Promise.resolve();
    t.deepEqual(queue._queuedDecodes.map(({sequenceId}) => sequenceId), [1, 0]); // as they asked: src/batching.ts counts on it
    await Promise.all(waiting);
    await llama.dispose();
});

test("LlamaContext._batchingOptions has the strategy, and the resolver makes a function of its name", async (t) => {
    const context = await createContext({batching: {itemPrioritizationStrategy: "firstInFirstOut"}});
    t.is(queueOf(context)._batchingOptions.itemPrioritizationStrategy, "firstInFirstOut");
    await context.dispose();

    const items = [1, 5].map((evaluationPriority) => ({tokens: [5, 6] as Token[], logits: [false, true], evaluationPriority}));
    const chosen = (await loadStrategyResolver())("firstInFirstOut")({items: items as unknown as readonly BatchItem[], size: 3});
    t.deepEqual(chosen.map(({item, processAmount}) => [item.evaluationPriority, processAmount]), [[5, 2], [1, 1]]);
});

test("LlamaContext._decodeTokens tells each row's place in the batch; AddonContext copies and empties sequences", async (t) => {
    const context = await createContext({sequences: 2});
    const addonContext = addonContextOf(context);
    const queue = queueOf(context);
    const tokens = [5, 6, 7] as Token[];
    const evaluate = async (sequenceId: number, from: number) => await queue._decodeTokens(
        {sequenceId, tokens: tokens.slice(from), firstTokenSequenceIndex: from, logits: tokens.slice(from).map(() => true)},
        (row) => row
    );

    t.deepEqual(await evaluate(0, 0), [[0, 0], [1, 1], [2, 2]]);
    t.is(await addonContext.copySequenceStateFromOtherSequence(1, 0), 2);
    addonContext.disposeSequence(0);
    t.deepEqual(await evaluate(0, 0), [[0, 0], [1, 1], [2, 2]]);
    await context.dispose();
});

test("AddonLogits reads rows of the last batch, and refuses what is none", async (t) => {
    const context = await createContext();
    const {AddonLogits} = bindingOf(oracleModel.llama);
    const logits = new AddonLogits(addonContextOf(context));
    t.throws(() => new AddonLogits({} as never), {instanceOf: TypeError, message: /not made by this build/});

    const rows = await queueOf(context)._decodeTokens(
        {sequenceId: 0, tokens: [5 as Token], firstTokenSequenceIndex: 0, logits: [true]},
        (row) => {
            const all = logits.copyLogProbabilities(row);
            const most = all.reduce((best, value, token) => value > all[best]! ? token : best, 0);
            return {
                all, most, likeliest: logits.getLikeliestToken(row),
                some: logits.getLogProbabilities(row, Uint32Array.of(most, 3)), same: logits.getDivergence(row, all),
                foreign: t.throws(() => logits.getLogProbabilities(row, Uint32Array.of(1e6)), {instanceOf: RangeError}),
                short: t.throws(() => logits.getDivergence(row, new Float32Array(3)), {instanceOf: RangeError}),
                noRow: t.throws(() => logits.getLikeliestToken(99), {instanceOf: RangeError})
            };
        }
    );
    const [, read] = rows[0]!;
    t.is<number, number>(read.likeliest, read.most);
    t.true(Math.abs(read.some[0]! - read.all[read.most]!) < 1e-6);
    t.true(Math.abs(read.all.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-4);
    t.true(Math.abs(read.same.divergence) < 1e-6);
    t.true(read.same.sameTop);

    await context.dispose();
    t.throws(() => logits.getLikeliestToken(0), {message: /disposed or not loaded/});
});
