import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {LlamaLogLevel, emulateAttention, getLlama} from "reattend";
import {underArm} from "#dist/evaluate/arms.js";
import {createEvaluationContext} from "#dist/evaluate/context.js";
import {groupChoices, longestSequence, prepareChoice, scoreChoices} from "#dist/evaluate/logLikelihood.js";
import {randomText, writeRandomModel} from "../support/randomModel.js";
import {embeddedModelPath} from "#dist/cli/flags.js";
import type {LlamaContextSequence, Token} from "reattend";

const llama = await getLlama({logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath: embeddedModelPath});

const prompts: Array<[prompt: string, options: string[]]> = [
    ["Where people are: Max tower, Alice station. Where is Max?", [" tower", " station", " Max"]],
    ["The key Max. ", ["Where is the key?", "Max tower", "x"]],
    ["ab", ["a", "ab"]],
    ["Noah attic, Mia museum.\nWhere is Noah?", ["\nA attic", "\nA attic\nB museum", " zq", ""]]
];

test.after.always(() => llama.dispose());

/** One option after another, through node-llama-cpp's own means, the whole text each time. */
async function naiveScore(sequence: LlamaContextSequence, prompt: string, option: string): Promise<number> {
    const bos = model.tokens.bos!;
    const promptTokens = [bos, ...model.tokenize(prompt.trimEnd())];
    const tokens = [bos, ...model.tokenize(prompt + option)];
    let from = 0;
    while (from < tokens.length - 1 && promptTokens[from] === tokens[from])
        from++;

    await sequence.clearHistory();
    const outputs = await sequence.controlledEvaluate(tokens.map((token) => (
        [token, {generateNext: {probabilities: true, options: {temperature: 0}}}] as [Token, object]
    )));
    let sum = 0;
    for (let index = from; index < tokens.length; index++)
        sum += Math.log(outputs[index - 1]!.next.probabilities!.get(tokens[index]!)!);
    return sum;
}

for (const strength of [undefined, 0.5]) {
    test.serial(`log-likelihoods are those of a naive computation, ${strength == null ? "plain" : "steered"}`, async (t) => {
        const emulation = strength == null ? undefined : {strength, schedule: "constant" as const};
        const choices = prompts.map(([prompt, options]) => prepareChoice(model, prompt, options));
        const context = await createEvaluationContext(model, {length: Math.max(...choices.map(longestSequence)), sequences: 8});
        const scores = await underArm(context, {name: "", emulation}, () => scoreChoices(context, choices));
        t.false(scores.flatMap(({logLikelihoods}) => logLikelihoods).some(Number.isNaN));

        const naiveContext = await model.createContext({contextSize: 256});
        if (emulation != null)
            emulateAttention(naiveContext, emulation);
        const sequence = naiveContext.getSequence();
        for (const [index, [prompt, options]] of prompts.entries()) {
            for (const [option, text] of options.entries()) {
                const expected = await naiveScore(sequence, prompt, text);
                const actual = scores[index]!.logLikelihoods[option]!;
                // F16 keys and values, and another order of sums
                t.true(Math.abs(actual - expected) < 0.01 + 0.002 * Math.abs(expected), `${prompt}|${text}: ${actual}, not ${expected}`);
            }
        }
        await context.dispose();
        await naiveContext.dispose();
    });
}

test.serial("the same choices give the same bits, and steering changes them", async (t) => {
    const choices = prompts.map(([prompt, options]) => prepareChoice(model, prompt, options));
    const context = await createEvaluationContext(model, {length: 64, sequences: 5});
    const plain = await scoreChoices(context, choices);
    const steered = await underArm(context, {name: "steered", emulation: {strength: 1}}, () => scoreChoices(context, choices));
    t.deepEqual(await scoreChoices(context, choices), plain);
    t.notDeepEqual(steered, plain);
    t.deepEqual(await underArm(context, {name: "steered", emulation: {strength: 1}}, () => scoreChoices(context, choices)), steered);
    await context.dispose();
});

test.serial("what prompts begin with alike, such as examples, is evaluated once and changes no log-likelihood", async (t) => {
    const people = ["Max", "Alice", "Noah", "Mia"];
    const places = ["tower", "station", "attic", "museum", "hall", "park"];
    const examples = Array.from({length: 12}, (_, index) => (
        `Where people are: ${people[index % 4]} ${places[index % 6]}.\nWhere is ${people[index % 4]}?\nAnswer: ${places[index % 6]}\n\n`
    )).join("");
    const questions = ["Where is Max?", "Where is Alice? Alice hall.\nAnswer:", "Who has the key?"];
    const choices = questions.flatMap((question) => [
        prepareChoice(model, examples + question, [" tower", " station"]),
        prepareChoice(model, examples + question, [" Max tower", " Alice station of the town"])
    ]);

    const length = Math.max(...choices.map(longestSequence));
    const together = await createEvaluationContext(model, {length, sequences: 9, threads: 1});
    const alone = await createEvaluationContext(model, {length, sequences: 2, threads: 1}); // a choice at a time, which shares nothing
    t.is(groupChoices(choices, 9).length, 1);
    for (const emulation of [undefined, {strength: 1}, {strength: 1, pattern: "random" as const}]) {
        const scores = await underArm(together, {name: "", emulation}, () => scoreChoices(together, choices));
        t.deepEqual(await underArm(together, {name: "", emulation}, () => scoreChoices(together, choices)), scores);
        const expected: typeof scores = [];
        for (const choice of choices)
            expected.push(...await underArm(alone, {name: "", emulation}, () => scoreChoices(alone, [choice])));
        for (const [index, {logLikelihoods, tokens}] of scores.entries()) {
            for (const [option, logLikelihood] of logLikelihoods.entries()) {
                const reference = expected[index]!.logLikelihoods[option]!;
                // F16 keys and values, and another order of sums
                t.true(Math.abs(logLikelihood - reference) < 0.01 + 0.002 * Math.abs(reference), `${logLikelihood}, not ${reference}`);
            }
            const saved = expected[index]!.tokens - tokens;
            t.true(index === 0 ? saved === 0 : saved >= model.tokenize(examples).length - 2, `${index}: ${saved} tokens are saved`);
        }
    }
    await together.dispose();
    await alone.dispose();
});

test("single-token options take one sequence, others one each; groups keep the order", (t) => {
    const letter = prepareChoice(model, "Where is Max?", [" tower", " station"]);
    t.deepEqual(letter.options.map(({tokens}) => tokens.length), [1, 1]);
    const long = prepareChoice(model, "Where is Max?", [" Max tower", " Alice station", " park"]);
    t.deepEqual(groupChoices([letter, long, letter, letter, long], 4), [[letter, long], [letter, letter], [long]]);
    t.throws(() => groupChoices([long], 2), {instanceOf: RangeError, message: /needs as many sequences/});
});

test("prompt and option become tokens together, and spaces at the prompt's end belong to the option", (t) => {
    t.deepEqual(
        prepareChoice(model, "Where is Max? ", ["tower", "station"]),
        prepareChoice(model, "Where is Max?", [" tower", " station"])
    );
    const {prefix, options} = prepareChoice(model, "Where is Max?", [" tower", " station"]);
    t.deepEqual([...prefix, ...options[0]!.tokens], [model.tokens.bos!, ...model.tokenize("Where is Max? tower")]);
});

test.serial("a model with two caches: the prefix is copied in both", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    await writeRandomModel(path.join(folder, "model.gguf"), {architecture: "gemma3", layers: 7, seed: 1, window: 40});
    const windowed = await llama.loadModel({modelPath: path.join(folder, "model.gguf")});

    const text = randomText(130, 3) as Token[];
    const options = [text.slice(100, 110), text.slice(110, 114), text.slice(114)];
    const choice = {prefix: text.slice(0, 100), options: options.map((tokens) => ({tokens, scoredFrom: 0}))};
    const context = await createEvaluationContext(windowed, {length: 256, sequences: 7});
    for (const emulation of [undefined, {strength: 1}]) {
        // two of the same side by side, and each option as its own text: nothing is copied there
        const [together, again] = await underArm(context, {name: "", emulation}, () => scoreChoices(context, [choice, choice]));
        const alone = await underArm(context, {name: "", emulation}, () => (
            scoreChoices(context, options.map((tokens) => ({prefix: choice.prefix, options: [{tokens, scoredFrom: 0}]})))
        ));
        for (const [index, {logLikelihoods: [expected]}] of alone.entries()) {
            for (const {logLikelihoods} of [together!, again!])
                t.true(Math.abs(logLikelihoods[index]! - expected!) < 0.002 * Math.abs(expected!), `${logLikelihoods[index]}, not ${expected}`);
        }
    }
    await windowed.dispose();
});

test("an interrupt ends scoring", async (t) => {
    const context = await createEvaluationContext(model, {length: 64, sequences: 4});
    await t.throwsAsync(scoreChoices(context, [prepareChoice(model, "x", [" a", " b"])], {signal: AbortSignal.abort()}), {any: true, name: "AbortError"});
    await context.dispose();
});
