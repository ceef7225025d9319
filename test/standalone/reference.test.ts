import test from "ava";
import {worstNmse} from "../support/nmse.js";
import {oracleModelPath, readOracle} from "../support/oracle.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";

// both are at 3e-11, which is what 32-bit arithmetic costs; a weight that falls on the other side of the threshold costs up to 1e-8
const allowed = 1e-8;

const oracle = await readOracle();
const reference = await ReferenceLlama.read(oracleModelPath);

for (const {strength, pattern, prefill_logits, decode_logits} of oracle.cases) {
    test(`the reference computes what the authors' code does: strength ${strength}, pattern ${pattern}`, (t) => {
        const logits = reference.logits(oracle.tokens, {
            strength,
            threshold: oracle.threshold,
            sourceLayer: 0,
            gain: linearGain(reference.layerCount),
            pattern,
            normalize: false
        });
        const positions = [...oracle.prefill_positions, ...oracle.decode_positions];
        const error = worstNmse(positions.map((position) => logits[position]!), [...prefill_logits, ...decode_logits]);
        t.log(`NMSE ${error.toExponential(1)}`);
        t.true(error <= allowed);
    });
}
