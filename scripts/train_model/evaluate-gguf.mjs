#!/usr/bin/env node
// Asks the exported model the test questions through stock node-llama-cpp, by plain greedy decoding, and prints the accuracy
// of each family with its 95 % Wilson interval. With --tokens FILE (from `scripts/train-model tokens`) it first checks that
// llama.cpp cuts every question into the tokens that the model was trained with.
import fs from "node:fs";
import path from "node:path";
import {parseArgs} from "node:util";
import {getLlama, LlamaChatSession, resolveChatWrapper} from "node-llama-cpp";

const root = path.join(import.meta.dirname, "..", "..");
const {values: options} = parseArgs({
    options: {
        model: {type: "string", default: path.join(root, "models", "reattend-mini.gguf")},
        questions: {type: "string", default: path.join(root, "models", "questions.jsonl")},
        tokens: {type: "string"},
        each: {type: "string", default: "1000"}, // at most so many questions of a family
        threads: {type: "string", default: "1"},
        show: {type: "boolean", default: false}
    }
});

function wilson(right, count) {
    const z = 1.96, share = right / count;
    const middle = share + z * z / (2 * count);
    const reach = z * Math.sqrt(share * (1 - share) / count + z * z / (4 * count * count));
    return [middle - reach, middle + reach].map((bound) => bound / (1 + z * z / count));
}

const percent = (share) => (100 * share).toFixed(1);
const questions = fs.readFileSync(options.questions, "utf8").trim().split("\n").map((line) => JSON.parse(line));
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(options.threads)});
const model = await llama.loadModel({modelPath: options.model});

if (options.tokens != null) {
    const expected = fs.readFileSync(options.tokens, "utf8").trim().split("\n").map((line) => JSON.parse(line));
    for (const [index, {id, question}] of questions.entries()) {
        const tokens = model.tokenize(question);
        if (JSON.stringify(tokens) !== JSON.stringify(expected[index]) || model.detokenize(tokens) !== question)
            throw new Error(`${id}: tokens differ: ${tokens} and ${expected[index]}`);
    }
    console.log(`${questions.length} questions: the same tokens as in training`);
}

const context = await model.createContext({contextSize: 512, threads: Number(options.threads)});
const sequence = context.getSequence();
const chatWrapper = resolveChatWrapper(model, {type: "jinjaTemplate"}); // the file's own, without a search for a better one
const marks = new Map();
for (const {family, question, answer} of questions) {
    const row = marks.get(family) ?? [];
    marks.set(family, row);
    if (row.length >= Number(options.each))
        continue;
    const session = new LlamaChatSession({contextSequence: sequence, chatWrapper, autoDisposeSequence: false});
    const reply = await session.prompt(question, {temperature: 0, repeatPenalty: false, maxTokens: 80});
    session.dispose({disposeSequence: false});
    await sequence.clearHistory();
    row.push(/Response: ([A-D])/.exec(reply)?.[1] === answer);
    if (options.show)
        console.log(`${question}\n${reply}\n(${answer})\n`);
}

console.log("| family | n | accuracy, % | 95 % interval |\n|---|---|---|---|");
for (const [family, row] of [...marks, ["all", [...marks.values()].flat()]]) {
    const right = row.filter(Boolean).length, count = row.length;
    console.log(`| ${family} | ${count} | ${percent(right / count)} | ${wilson(right, count).map(percent).join(" – ")} |`);
}
await llama.dispose();
