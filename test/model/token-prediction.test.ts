import test from "ava";
import {DraftSequenceTokenPredictor, emulateAttention, getLlama, InputLookupTokenPredictor, LlamaLogLevel} from "reattend";
import type {ExecutionContext} from "ava";
import type {LlamaContextSequence, Token, TokenPredictor} from "reattend";
import {oracleModelPath} from "../support/oracle.js";
import {createContext} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * Guessed tokens are checked several at a time, and taken back where they are wrong: the text is what it is without guessing.
 */

const prompt = randomTokens(60, 124) as Token[];
const length = 40;
const contextStrength = 1;

// of the sequence: none of its own, or these
const strengths = [undefined, 0, 0.4];
const texts: Token[][] = [];
for (const strength of strengths)
    texts.push(await generate(strength));

// a model that drafts tells the target from itself by being another object
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const draftModel = await llama.loadModel({modelPath: oracleModelPath});

test.serial("the texts differ, and no choice between two tokens or keys is a close one", async (t) => {
    t.is(new Set(texts.map(String)).size, strengths.length);
    for (const [i, strength] of strengths.entries()) {
        let closest = Infinity;
        for (const threshold of [0.00995, 0.01, 0.01005]) {
            const text = await generate(strength, {threshold, onProbabilities: (probabilities) => {
                const [first, second] = Array.from(probabilities.values()).sort((a, b) => b - a) as [number, number];
                closest = Math.min(closest, Math.log(first / second));
            }});
            t.deepEqual(text, texts[i]);
        }
        t.log(`closest choice by ${closest.toFixed(3)}`);
        t.true(closest > 0.005);
    }
});

for (const [i, strength] of strengths.entries()) {
    const ofTarget = strength ?? "the context's";

    test.serial(`looked up in the input; strength ${ofTarget}`, async (t) => {
        // the other texts begin alike and go on otherwise
        const tokenPredictor = new InputLookupTokenPredictor({patternLength: {min: 1}, predictionLength: {max: 4}});
        tokenPredictor.updateInputTokens([...prompt, ...texts.filter((_, other) => other !== i).flat()]);
        await checkText(t, i, tokenPredictor);
    });

    for (const draftStrength of [undefined, contextStrength, 0.4]) {
        test.serial(`drafted, ${draftStrength == null ? "not emulated" : `strength ${draftStrength}`}; strength ${ofTarget}`, async (t) => {
            const draftContext = await draftModel.createContext({contextSize: 256, threads: 1, flashAttention: true});
            if (draftStrength != null)
                emulateAttention(draftContext, {strength: draftStrength});
            const draftSequence = draftContext.getSequence();
            // as many at least as at most: node-llama-cpp may wait for ever if it takes back a guess while it makes the next one
            await checkText(t, i, new DraftSequenceTokenPredictor(draftSequence, {minTokens: 4, maxTokens: 4, minConfidence: 0}));
            await draftContext.dispose();
        });
    }
}

async function checkText(t: ExecutionContext, index: number, tokenPredictor: TokenPredictor): Promise<void> {
    let sequence: LlamaContextSequence | undefined;
    const text = await generate(strengths[index], {tokenPredictor, onSequence: (created) => sequence = created});
    t.deepEqual(text, texts[index]);

    const {validated, refuted} = sequence!.tokenPredictions;
    t.log(`${validated} tokens guessed right, ${refuted} wrong`);
    t.true(validated > 0);
    t.true(refuted > 0, "nothing was taken back");
}

type GenerateOptions = {
    threshold?: number,
    tokenPredictor?: TokenPredictor,
    onSequence?: (sequence: LlamaContextSequence) => void,
    onProbabilities?: (probabilities: ReadonlyMap<Token, number>) => void
};

/** The likeliest tokens after the prompt. */
async function generate(
    strength: number | undefined, {threshold, tokenPredictor, onSequence, onProbabilities}: GenerateOptions = {}
): Promise<Token[]> {
    const context = await createContext();
    const emulation = emulateAttention(context, {strength: contextStrength, threshold});
    const sequence = context.getSequence({tokenPredictor});
    emulation.setSequenceStrength(sequence, strength);
    onSequence?.(sequence);

    const text: Token[] = [];
    for await (const {token, probabilities} of sequence.evaluateWithMetadata(prompt, {probabilities: true}, {yieldEogToken: true})) {
        onProbabilities?.(probabilities);
        if (text.push(token) === length)
            break;
    }
    await context.dispose();
    return text;
}
