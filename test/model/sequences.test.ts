import v8 from "node:v8";
import vm from "node:vm";
import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateAtOnce, evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath, readOracle} from "../support/oracle.js";
import {createContext} from "../support/oracleModel.js";
import {seededRandom} from "#dist/random.js";
import {randomTokens} from "../support/tokens.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";

for (const flashAttention of [true, false]) {
    test.serial(`each sequence has its own strength, inside one batch; flash attention ${flashAttention}`, async (t) => {
        const oracle = await readOracle();
        const cases = oracle.cases.filter(({pattern}) => pattern === "early-layer");
        const sequencesInBatch: number[] = [];
        const context = await createContext({sequences: cases.length, flashAttention, batching: {
            itemPrioritizationStrategy({items}) {
                sequencesInBatch.push(items.length);
                return items.map((item) => ({item, processAmount: item.tokens.length}));
            }
        }});

        const emulation = emulateAttention(context, {strength: cases[0]!.strength});
        const results = await Promise.all(cases.map(async ({strength}, i) => {
            const sequence = context.getSequence();
            if (i > 0) // the first one has the context's
                emulation.setSequenceStrength(sequence, strength);
            return await evaluateInChunks(sequence, oracle.tokens, [50, 50, 60]);
        }));

        t.is(Math.max(...sequencesInBatch), cases.length, "the sequences were not evaluated in one batch");
        for (const [i, {strength, prefill_logits, decode_logits}] of cases.entries()) {
            const positions = [...oracle.prefill_positions, ...oracle.decode_positions];
            const error = worstNmse(positions.map((position) => results[i]![position]!), [...prefill_logits, ...decode_logits]);
            t.log(`strength ${strength}: NMSE ${error.toExponential(1)}`);
            t.true(error <= allowedNmse, `strength ${strength}: NMSE ${error}`);
        }
        await context.dispose();
    });

    test.serial(`strengths change at every token while two sequences decode; flash attention ${flashAttention}`, async (t) => {
        const reference = await ReferenceLlama.read(oracleModelPath);
        const context = await createContext({sequences: 2, flashAttention});
        const threshold = 0.1041; // no weight is within 0.3 % of it
        const emulation = emulateAttention(context, {strength: 0.5, threshold});
        const random = seededRandom(6);
        const count = 60;

        // the first follows the context's strength, the second has its own
        const [first, second] = [context.getSequence(), context.getSequence()];
        const [firstTokens, secondTokens] = [randomTokens(count, 7), randomTokens(count, 8)];
        const [firstStrengths, secondStrengths] = [7, 8].map(() => Array.from({length: count}, () => 2 * random() - 0.8)) as
            [number[], number[]];

        const logits: Float32Array[][] = [[], []];
        for (let i = 0; i < count; i++) {
            emulation.strength = firstStrengths[i]!;
            emulation.setSequenceStrength(second, secondStrengths[i]);
            const [[a], [b]] = await Promise.all([
                evaluateAtOnce(first, [firstTokens[i]!]),
                evaluateAtOnce(second, [secondTokens[i]!])
            ]);
            logits[0]!.push(a!);
            logits[1]!.push(b!);
        }

        for (const [i, [tokens, strength]] of [[firstTokens, firstStrengths], [secondTokens, secondStrengths]].entries()) {
            const expected = reference.logits(tokens!, {
                strength: strength!,
                threshold,
                sourceLayer: 0,
                gain: linearGain(reference.layerCount),
                pattern: "early-layer",
                normalize: false
            });
            const error = worstNmse(logits[i]!, expected);
            t.log(`NMSE ${error.toExponential(1)}`);
            t.true(error <= allowedNmse, `sequence ${i}: NMSE ${error}`);
        }
        await context.dispose();
    });
}

test.serial("a sequence returns to the context's strength", async (t) => {
    const tokens = randomTokens(50, 9);
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.5});
    const sequence = context.getSequence();
    const before = await evaluateInChunks(sequence, tokens, [50]);

    emulation.setSequenceStrength(sequence, 0);
    await sequence.clearHistory();
    t.notDeepEqual(await evaluateInChunks(sequence, tokens, [50]), before);

    emulation.setSequenceStrength(sequence, undefined);
    await sequence.clearHistory();
    t.deepEqual(await evaluateInChunks(sequence, tokens, [50]), before);
    await context.dispose();
});

test.serial("a hundred recycled ids inherit no strength", async (t) => {
    const tokens = randomTokens(20, 10);
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.2});
    const evaluateWith = async (strength?: number) => {
        const sequence = context.getSequence();
        if (strength != null)
            emulation.setSequenceStrength(sequence, strength);
        const logits = await evaluateInChunks(sequence, tokens, [20]);
        await sequence.dispose();
        return logits;
    };

    const own = await evaluateWith();
    t.notDeepEqual(await evaluateWith(1), own);
    for (let i = 0; i < 100; i++) {
        await evaluateWith(1 + i / 100);
        t.deepEqual(await evaluateWith(), own, `round ${i}`);
    }
    await context.dispose();
});

test.serial("nor does the id of a sequence that was dropped without dispose", async (t) => {
    const tokens = randomTokens(20, 10);
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: 0.2});
    const collectGarbage = exposedGarbageCollector();

    const first = context.getSequence();
    const own = await evaluateInChunks(first, tokens, [20]);
    await first.dispose();

    await (async () => {
        const sequence = context.getSequence();
        emulation.setSequenceStrength(sequence, 1);
        t.notDeepEqual(await evaluateInChunks(sequence, tokens, [20]), own);
    })();
    t.is(context.sequencesLeft, 0);
    for (let i = 0; i < 100 && context.sequencesLeft === 0; i++) {
        collectGarbage();
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    t.is(context.sequencesLeft, 1, "the sequence was not collected");

    t.deepEqual(await evaluateInChunks(context.getSequence(), tokens, [20]), own);
    await context.dispose();
});

function exposedGarbageCollector(): () => void {
    v8.setFlagsFromString("--expose-gc");
    return vm.runInNewContext("gc") as () => void;
}
