import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {readOracle} from "../support/oracle.js";
import {createContext, kernels} from "../support/oracleModel.js";

const oracle = await readOracle();
const positions = [...oracle.prefill_positions, ...oracle.decode_positions];

const splits = [
    {name: "in one piece", sizes: [oracle.prefill_n]},
    {name: "in uneven chunks", sizes: [1, 7, 64, 3, 85, 2, 5, 1, 14]},
    {name: "token by token", sizes: []}
];

for (const {name: kernelName, flashAttention, kernel, reported} of kernels) {
    for (const threads of [1, 2]) {
        for (const {name: splitName, sizes} of splits) {
            test.serial(`the authors' logits: ${kernelName}, ${splitName}, ${threads} threads`, async (t) => {
                const context = await createContext({flashAttention, threads});
                const sequence = context.getSequence();

                for (const {strength, pattern, prefill_logits, decode_logits} of oracle.cases) {
                    using emulation = emulateAttention(context, {strength, pattern, kernel, threshold: oracle.threshold});
                    t.is(emulation.report().kernel, reported);

                    await sequence.clearHistory();
                    const logits = await evaluateInChunks(sequence, oracle.tokens, sizes);
                    t.is(context.currentThreads, threads);

                    const error = worstNmse(positions.map((position) => logits[position]!), [...prefill_logits, ...decode_logits]);
                    t.log(`strength ${strength}, ${pattern}: NMSE ${error.toExponential(1)}`);
                    t.true(error <= allowedNmse, `strength ${strength}, ${pattern}: NMSE ${error}`);
                }
                await context.dispose();
            });
        }
    }
}

test("a wrong result would be noticed", (t) => {
    const logitsOf = (strength: number) => {
        const {prefill_logits, decode_logits} = oracle.cases.find((entry) => entry.strength === strength)!;
        return [...prefill_logits, ...decode_logits];
    };
    t.true(worstNmse(logitsOf(0.2), logitsOf(0)) > 100 * allowedNmse);
});
