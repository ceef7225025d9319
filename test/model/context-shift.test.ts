import {fileURLToPath} from "node:url";
import test from "ava";
import {emulateAttention, getLlama, LlamaChatSession, LlamaLogLevel} from "reattend";
import {chooseQuestions, readQuestions} from "#dist/evaluate/questions.js";
import {compareAnyWithDense} from "../support/dense.js";
import {evaluateAtOnce} from "../support/logits.js";

/*
 * A chat that is longer than its context: early turns are left out, and an answer that gets too long makes room while it is written.
 */

const models = new URL("../../models/", import.meta.url);
const questions = chooseQuestions(await readQuestions(fileURLToPath(new URL("questions.jsonl", models))), 7, 1);
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: fileURLToPath(new URL("reattend-mini.gguf", models))});

// forced, so that kernels that differ by a rounding write the same
const shortAnswer = await llama.createGrammar({grammar: 'root ::= "Analysis: Max tower. So tower (A).\\nResponse: A"'});
const longAnswer = await llama.createGrammar({grammar: 'root ::= ("Max tower. Later Max station. "){26}'});

test("after a long chat fused and dense agree", async (t) => {
    await compareAnyWithDense(t, async (emulation) => {
        const context = await model.createContext({contextSize: 256, threads: 1, flashAttention: true});
        if (emulation != null)
            emulateAttention(context, emulation);
        const contextSequence = context.getSequence();
        const session = new LlamaChatSession({contextSequence});
        const knows = (text: string) => model.detokenize(contextSequence.contextTokens).includes(text);

        for (const {question} of questions)
            await session.prompt(question, {grammar: shortAnswer});
        t.true(knows(questions.at(-1)!.question));
        t.false(knows(questions[0]!.question), "the first question is still there");

        let written = 0;
        await session.prompt("Where is Max?", {grammar: longAnswer, onToken: (tokens) => written += tokens.length});
        t.true(written > context.contextSize, `${written} tokens fit in`);

        const rows = await evaluateAtOnce(contextSequence, model.tokenize(" Where is the key? Later Max museum."));
        await context.dispose();
        return rows;
    }, {strength: 0.5});
});
