import test from "ava";
import {emulateAttention, EmptyChatWrapper} from "reattend";
import type {AttentionEmulationTarget, LlamaContextSequence} from "reattend";
import {getLlama as getStockLlama, LlamaLogLevel} from "node-llama-cpp";
import {evaluateInChunks} from "../support/logits.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {testWithStock} from "../support/stock.js";
import {randomTokens} from "../support/tokens.js";

const tokens = randomTokens(30, 14);

test.serial("an emulation knows its options, its strength, and whether it is disposed", async (t) => {
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.3, pattern: "all"});
    t.like(emulation.options, {strength: 0.3, threshold: 0.01, pattern: "all", normalize: false});
    t.is(emulation.strength, 0.3);

    emulation.strength = -0.25;
    t.is(emulation.strength, -0.25);
    t.is(emulation.options.strength, 0.3);

    t.false(emulation.disposed);
    emulation.dispose();
    emulation.dispose();
    t.true(emulation.disposed);
    await context.dispose();
});

test.serial("a block that ends disposes it", async (t) => {
    const context = await createContext();
    let kept;
    {
        using emulation = emulateAttention(context);
        kept = emulation;
        t.false(kept.disposed);
    }
    t.true(kept.disposed);
    await context.dispose();
});

test.serial("the report says what is done in each layer", async (t) => {
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.7, sourceLayer: 1});
    const {kernel, layers, patternBytes} = emulation.report();
    t.is(kernel, "fused");
    t.deepEqual(layers.map(({index}) => index), [0, 1, 2, 3, 4, 5, 6, 7]);
    const reasons: Record<number, string> = {
        0: "the layer comes before the source layer",
        1: "the pattern is taken from this layer",
        7: "the schedule's gain is 0 in this layer"
    };
    for (const {index, gain, emulated, kernel, reason} of layers) {
        const reasonExpected = reasons[index];
        if (reasonExpected != null) {
            t.deepEqual({gain, emulated, kernel, reason}, {gain: 0, emulated: false, kernel: undefined, reason: reasonExpected});
        } else {
            t.deepEqual({gain, emulated, kernel, reason}, {
                gain: 0.7 * (1 - index / 7), emulated: true, kernel: "fused", reason: undefined
            });
        }
    }
    t.true(patternBytes > 0 && patternBytes <= 8 * 1024 ** 2, `${patternBytes} bytes`);

    emulation.strength = 0.1;
    t.is(emulation.report().layers[2]!.gain, 0.1 * (1 - 2 / 7));
    await context.dispose();
});

test.serial("the report gives a gain for each head where the schedule does", async (t) => {
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.5, schedule: Array.from({length: 8}, (_, i) => [i, 1])});
    t.deepEqual(emulation.report().layers[3]!.gain, [1.5, 0.5]);
    await context.dispose();
});

test.serial("an embedding context can be emulated", async (t) => {
    const embeddingContext = await oracleModel.createEmbeddingContext({contextSize: 256, threads: 1});
    const plain = await embeddingContext.getEmbeddingFor(tokens.map((token) => token as never));
    const emulation = emulateAttention(embeddingContext, {strength: 1});
    const emulated = await embeddingContext.getEmbeddingFor(tokens.map((token) => token as never));
    emulation.dispose();
    const after = await embeddingContext.getEmbeddingFor(tokens.map((token) => token as never));

    t.notDeepEqual(emulated.vector, plain.vector);
    t.deepEqual(after.vector, plain.vector);
    await embeddingContext.dispose();
});

test.serial("a decision context can be emulated", async (t) => {
    const decisionContext = await oracleModel.createDecisionContext({contextSize: 256, threads: 1, chatWrapper: new EmptyChatWrapper()});
    const emulation = emulateAttention(decisionContext);
    t.is(emulation.report().kernel, "fused");
    await decisionContext.dispose();
    t.true(emulation.disposed);
});

test.serial("whatever holds a context can be emulated", async (t) => {
    const context = await createContext();
    const holder = {_llamaContext: context} as unknown as AttentionEmulationTarget; // as ranking contexts do
    const emulation = emulateAttention(holder);
    t.throws(() => emulateAttention(context), {message: /has an emulation already/});
    emulation.dispose();
    await context.dispose();
});

test.serial("a context has one emulation at a time", async (t) => {
    const context = await createContext();
    const first = emulateAttention(context, {strength: 0.5});
    t.throws(() => emulateAttention(context), {
        instanceOf: Error,
        message: "The context has an emulation already: change that one's strength, or dispose it first"
    });
    t.false(first.disposed);

    first.dispose();
    const second = emulateAttention(context, {strength: 0.6});
    first.dispose(); // has nothing to do with the second one
    t.false(second.disposed);
    t.is(second.report().kernel, "fused");
    await context.dispose();
});

test.serial("a refused option changes nothing", async (t) => {
    const context = await createContext();
    t.throws(() => emulateAttention(context, {strength: -2}), {instanceOf: RangeError, message: /^strength is -2/});
    t.throws(() => emulateAttention(context, {sourceLayer: 7}), {instanceOf: RangeError, message: /^sourceLayer is 7/});
    t.throws(() => emulateAttention(context, {schedule: [1]}), {instanceOf: RangeError, message: /must have 8/});
    t.throws(() => emulateAttention(context, {schedule: Array.from({length: 8}, () => [1])}), {
        instanceOf: RangeError, message: /must have 2/
    });

    const emulation = emulateAttention(context, {strength: 0.5, schedule: "constant"});
    const sequence = context.getSequence();
    for (const strength of [-1.5, NaN, Infinity]) {
        t.throws(() => {
            emulation.strength = strength;
        }, {instanceOf: RangeError, message: /^strength is /});
        t.throws(() => emulation.setSequenceStrength(sequence, strength), {instanceOf: RangeError, message: /^strength is /});
    }
    t.throws(() => {
        emulation.strength = "1" as unknown as number;
    }, {instanceOf: TypeError, message: 'strength is "1", but must be a number'});
    t.throws(() => emulation.setSequenceStrength(sequence, null as unknown as number), {
        instanceOf: TypeError, message: "strength is null, but must be a number"
    });
    t.is(emulation.strength, 0.5);
    await context.dispose();
});

test.serial("a context that is disposed takes its emulation along", async (t) => {
    const context = await createContext();
    const emulation = emulateAttention(context);
    const disposal = context.dispose();
    t.true(emulation.disposed);
    emulation.dispose();
    await disposal;

    t.true(emulation.disposed);
    emulation.dispose();
    t.throws(() => emulateAttention(context), {instanceOf: Error, message: "The context is disposed, so it can't be given an emulation"});
});

test.serial("a disposed emulation can't be used", async (t) => {
    const context = await createContext();
    const sequence = context.getSequence();
    const emulation = emulateAttention(context);
    emulation.dispose();

    const expected = {instanceOf: Error, message: "The emulation is disposed"};
    t.throws(() => {
        emulation.strength = 0.5;
    }, expected);
    t.throws(() => emulation.setSequenceStrength(sequence, 0.5), expected);
    t.throws(() => emulation.report(), expected);
    await context.dispose();
});

test.serial("sequences must be live ones of the same context", async (t) => {
    const [context, otherContext] = [await createContext(), await createContext()];
    const emulation = emulateAttention(context);

    t.throws(() => emulation.setSequenceStrength(otherContext.getSequence(), 0), {
        instanceOf: Error, message: "The sequence belongs to another context than the emulation"
    });

    const disposed = context.getSequence();
    await disposed.dispose();
    t.throws(() => emulation.setSequenceStrength(disposed, 0), {instanceOf: Error, message: "The sequence is disposed"});

    for (const value of [undefined, null, 0, "sequence", {}, context]) {
        t.throws(() => emulation.setSequenceStrength(value as LlamaContextSequence, 0), {
            instanceOf: TypeError, message: /^sequence is .*, but must be a LlamaContextSequence$/
        });
    }
    await Promise.all([context.dispose(), otherContext.dispose()]);
});

test.serial("what is no context is refused", (t) => {
    for (const value of [undefined, null, 0, "context", {}, [], () => {}, oracleModel, oracleModel.llama, {_llamaContext: 5}]) {
        t.throws(() => emulateAttention(value as unknown as AttentionEmulationTarget), {
            instanceOf: TypeError, message: /^The target is .*, but must be a LlamaContext/
        });
    }
});

test.serial("what only looks like a context is refused", async (t) => {
    const context = await createContext();
    const {AddonContext} = (oracleModel.llama as unknown as {_bindings: {AddonContext: {prototype: object}}})._bindings;
    for (const addonContext of [{}, [], "context", Object.create(AddonContext.prototype) as unknown]) {
        const imitation = Object.create(context, {_ctx: {value: addonContext}}) as AttentionEmulationTarget;
        t.throws(() => emulateAttention(imitation), {instanceOf: Error});
    }
    await context.dispose();
});

testWithStock("a context of node-llama-cpp's own llama.cpp is refused", async (t) => {
    const llama = await getStockLlama({gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error});
    const model = await llama.loadModel({modelPath: oracleModelPath});
    const context = await model.createContext({contextSize: 256});
    t.throws(() => emulateAttention(context), {
        instanceOf: TypeError,
        message: "The context belongs to a llama.cpp without emulation: " +
            "get its Llama instance from reattend's getLlama, not from node-llama-cpp's"
    });

    // nor does its native object get past our addon, whatever llama instance it claims to be of
    const disguised = Object.create(context, {_model: {value: oracleModel}, model: {value: oracleModel}}) as typeof context;
    t.throws(() => emulateAttention(disguised), {
        instanceOf: TypeError, message: "The context was not made by this build of llama.cpp"
    });

    const logits = await evaluateInChunks(context.getSequence(), tokens, [30]);
    t.is(logits.length, 30);
    await llama.dispose();
});
