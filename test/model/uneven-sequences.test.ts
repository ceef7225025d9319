import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import {roundingNmse} from "../support/dense.js";
import {evaluateInChunks} from "../support/logits.js";
import {worstNmse} from "../support/nmse.js";
import {clearThreshold, randomText, writeRandomModel} from "../support/randomModel.js";

/*
 * Sequences of one context that are not alike in length, nor in the pieces they are evaluated in: each is what it is alone.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});

const texts = [150, 3, 61, 1, 97].map((length, i) => randomText(length, 40 + i));
const chunks = [[100, 1, 30], [1], [7, 40], [1], [64, 10]];
const differentStrengths = [0.5, 0, -0.5, 1, 0.2];

test.after.always(() => fs.rm(folder, {recursive: true}));

for (const options of [
    {architecture: "llama", layers: 4, seed: 1},
    {architecture: "gemma3", layers: 8, seed: 1, window: 40}
] as const) {
    for (const flashAttention of [true, false]) {
        test.serial(`${options.architecture}, flash attention ${flashAttention}`, async (t) => {
            const modelPath = path.join(folder, `${options.architecture}-${flashAttention}.gguf`);
            await writeRandomModel(modelPath, options);
            const model = await llama.loadModel({modelPath});

            const contextOptions = {contextSize: 256, batchSize: 512, threads: 1, flashAttention};

            const evaluateTogether = async (strengths: readonly number[] | number) => {
                const sequencesInBatch: number[] = [];
                const context = await model.createContext({
                    ...contextOptions,
                    sequences: texts.length,
                    batching: {
                        itemPrioritizationStrategy({items}) {
                            sequencesInBatch.push(items.length);
                            return items.map((item) => ({item, processAmount: item.tokens.length}));
                        }
                    }
                });
                const emulation = emulateAttention(context, {
                    threshold: clearThreshold, strength: typeof strengths === "number" ? strengths : 0.3
                });
                const logits = await Promise.all(texts.map((text, i) => {
                    const sequence = context.getSequence();
                    if (typeof strengths !== "number")
                        emulation.setSequenceStrength(sequence, strengths[i]);
                    return evaluateInChunks(sequence, text, chunks[i]);
                }));
                t.is(Math.max(...sequencesInBatch), texts.length, "the sequences were not evaluated in one batch");
                await context.dispose();
                return logits.flat();
            };
            const evaluateAlone = async (strengths: readonly number[] | number) => {
                const logits = [];
                for (const [i, text] of texts.entries()) {
                    const context = await model.createContext(contextOptions);
                    emulateAttention(context, {
                        threshold: clearThreshold, strength: typeof strengths === "number" ? strengths : strengths[i]!
                    });
                    logits.push(...await evaluateInChunks(context.getSequence(), text, chunks[i]));
                    await context.dispose();
                }
                return logits;
            };

            const plain = await evaluateAlone(0);
            const scale = Math.max(worstNmse(await evaluateTogether(0), plain), roundingNmse);
            for (const [name, strengths] of [["one strength", 0.5], ["different strengths", differentStrengths]] as const) {
                const expected = await evaluateAlone(strengths);
                const error = worstNmse(await evaluateTogether(strengths), expected);
                t.log(`${name}: NMSE ${error.toExponential(1)}, at strength 0 ${scale.toExponential(1)}`);
                t.true(error <= 5 * scale, `${name}: NMSE ${error}, at strength 0 ${scale}`);
                t.true(worstNmse(plain, expected) > 100 * scale, "the case would not show a mistake");
            }
            await model.dispose();
        });
    }
}
