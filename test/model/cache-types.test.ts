import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {nmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext} from "../support/oracleModel.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Keys and values of other types cost llama.cpp some accuracy; emulation costs no more than that.
 */

const reference = await ReferenceLlama.read(oracleModelPath);
const tokens = randomTokens(100, 2);
const threshold = 0.1123; // no weight is within 0.9 % of it
const emulated = reference.logits(tokens, {
    strength: 1, threshold, sourceLayer: 0, gain: linearGain(reference.layerCount), pattern: "early-layer", normalize: false
});
const plain = reference.logits(tokens);

const types = [["F32", "F32"], ["BF16", "BF16"], ["Q8_0", "F16"], ["Q8_0", "Q8_0"], ["Q5_1", "Q5_1"]] as const;

for (const [keyType, valueType] of types) {
    test.serial(`keys of ${keyType}, values of ${valueType}`, async (t) => {
        const evaluate = async (kernel?: "auto" | "dense") => {
            const context = await createContext({experimentalKvCacheKeyType: keyType, experimentalKvCacheValueType: valueType});
            if (kernel != null) {
                const {kernel: reported} = emulateAttention(context, {strength: 1, threshold, kernel}).report();
                t.is(reported, kernel === "auto" ? "fused" : "dense");
            }
            const logits = await evaluateInChunks(context.getSequence(), tokens, [64, 1, 20]);
            await context.dispose();
            return logits;
        };

        const stockError = medianNmse(await evaluate(), plain);
        t.log(`without emulation: NMSE ${stockError.toExponential(1)}`);
        t.true(medianNmse(emulated, plain) > 4 * stockError, "the case would not show a mistake");
        for (const kernel of ["auto", "dense"] as const) {
            const error = medianNmse(await evaluate(kernel), emulated);
            t.log(`kernel "${kernel}": NMSE ${error.toExponential(1)}`);
            t.true(error <= 2 * stockError);
        }
    });
}

/** Not the worst: with coarse keys a weight may fall on the other side of any threshold. */
function medianNmse(actual: ReadonlyArray<ArrayLike<number>>, expected: ReadonlyArray<ArrayLike<number>>): number {
    const errors = actual.map((logits, i) => nmse(logits, expected[i]!)).sort((a, b) => a - b);
    return errors[Math.floor(errors.length / 2)]!;
}
