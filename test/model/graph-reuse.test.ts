import test from "ava";
import {emulateAttention} from "reattend";
import {addonContextOf, bindingOf} from "#dist/binding.js";
import type {AttentionEmulation, LlamaContext, LlamaContextSequence} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * llama.cpp builds a graph for a batch, or uses the last one's again where it can. Emulation must not keep it from that.
 */

const tokens = randomTokens(100, 11);

const ways: Array<[name: string, changeStrength: (emulation: AttentionEmulation, sequences: LlamaContextSequence[], i: number) => void]> = [
    ["with a strength that stays", () => undefined],
    ["with a strength that changes at every token, 0 too", (emulation, [first], i) => {
        emulation.strength = i % 10 / 10;
        emulation.setSequenceStrength(first!, i % 3 === 0 ? undefined : i / 100);
    }]
];
for (const sequenceCount of [1, 2]) {
    for (const kernel of ["auto", "dense"] as const) {
        test.serial(`as many graphs are used again as without emulation: ${sequenceCount} sequences, kernel ${kernel}`, async (t) => {
            const plain = await reusedGraphs(sequenceCount);
            t.log(`${plain} of ${tokens.length} graphs were used again`);
            t.true(plain > 0.9 * tokens.length);
            for (const [name, changeStrength] of ways) {
                let emulation: AttentionEmulation;
                const reused = await reusedGraphs(sequenceCount, (context) => {
                    emulation = emulateAttention(context, {strength: 0.5, kernel});
                }, (sequences, i) => changeStrength(emulation, sequences, i));
                t.is(reused, plain, name);
            }
        });
    }
}

async function reusedGraphs(
    sequenceCount: number,
    prepare?: (context: LlamaContext) => void,
    beforeToken?: (sequences: LlamaContextSequence[], i: number) => void
): Promise<number> {
    const context = await createContext({sequences: sequenceCount});
    prepare?.(context);
    const sequences = Array.from({length: sequenceCount}, () => context.getSequence());
    for (const [i, token] of tokens.entries()) {
        beforeToken?.(sequences, i);
        await Promise.all(sequences.map((sequence) => evaluateInChunks(sequence, [token])));
    }

    const {AddonAttentionEmulation} = bindingOf(oracleModel.llama);
    const reused = new AddonAttentionEmulation!(addonContextOf(context)).getReusedGraphs();
    await context.dispose();
    return reused;
}
