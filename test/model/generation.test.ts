import test from "ava";
import {emulateAttention, getLlama, LlamaChatSession, LlamaLogLevel, LlamaText, resolveChatWrapper} from "reattend";
import {embeddedModelPath} from "#dist/cli/flags.js";
import {underArm} from "#dist/evaluate/arms.js";
import {createEvaluationContext} from "#dist/evaluate/context.js";
import {openReply} from "#dist/evaluate/conversation.js";
import {generateGreedily, preparePrompt} from "#dist/evaluate/generate.js";
import {cutIntoWindows, scoreWindow} from "#dist/evaluate/perplexity.js";
import {chooseQuestions, readQuestions} from "#dist/evaluate/questions.js";
import {embeddedQuestionsPath} from "#dist/evaluate/tasks/embedded.js";
import type {Token} from "reattend";

const llama = await getLlama({logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath: embeddedModelPath});
const chatWrapper = resolveChatWrapper(model, {type: "jinjaTemplate"});
const questions = chooseQuestions(await readQuestions(embeddedQuestionsPath), 24, 2);

test.after.always(() => llama.dispose());

for (const emulation of [undefined, {strength: 1}]) {
    test.serial(`replies are those of chat sessions, one after another, ${emulation == null ? "plain" : "steered"}`, async (t) => {
        const prompts = questions.map(({question}) => preparePrompt(model, openReply(question, {separator: "\n", chatWrapper})));
        const context = await createEvaluationContext(model, {length: 512, sequences: 5});
        const generations = await underArm(context, {name: "", emulation}, () => generateGreedily(context, prompts, {maxTokens: 100}));

        const chatContext = await model.createContext({contextSize: 512});
        if (emulation != null)
            emulateAttention(chatContext, emulation);
        const session = new LlamaChatSession({contextSequence: chatContext.getSequence(), chatWrapper, systemPrompt: ""});
        let same = 0;
        for (const [index, {question}] of questions.entries()) {
            session.resetChatHistory();
            const text = await session.prompt(question, {temperature: 0, repeatPenalty: false, maxTokens: 100});
            same += Number(text.trim() === generations[index]!.text.trim());
        }
        // side by side sums are rounded otherwise, which may turn a choice between two tokens that are as likely
        t.true(same >= questions.length - 1, `${same} of ${questions.length} are the same`);
        t.true(generations.every(({stopReason, tokens}) => stopReason === "end" && tokens > 5 && tokens < 100));
        await context.dispose();
        await chatContext.dispose();
    });
}

test.serial("a reply is cut off at the limit of tokens, or where the context ends", async (t) => {
    const prompt = preparePrompt(model, openReply(questions[0]!.question, {separator: "\n", chatWrapper}));
    const context = await createEvaluationContext(model, {length: 256, sequences: 1});
    const [short] = await generateGreedily(context, [prompt], {maxTokens: 4});
    t.is(short!.tokens, 4);
    t.is(short!.stopReason, "length");

    // the reply would take more than the three cells that are left; its last token needs none
    const before = model.tokenize(questions.map(({question}) => question).join("\n").repeat(10));
    const long = {...prompt, tokens: [...before.slice(0, context.contextSize - 3 - prompt.tokens.length), ...prompt.tokens]};
    const [full] = await generateGreedily(context, [long], {maxTokens: 10_000});
    t.is(full!.tokens, 4);
    t.is(full!.stopReason, "length");
    await context.dispose();
});

test.serial("a trigger that is text ends a reply, and is no part of it", async (t) => {
    const reply = openReply(questions[0]!.question, {separator: "\n", chatWrapper});
    const context = await createEvaluationContext(model, {length: 256, sequences: 1});
    const [whole] = await generateGreedily(context, [preparePrompt(model, reply)], {maxTokens: 100});
    const stopTriggers = [LlamaText(["\nResponse"])];
    const [cut] = await generateGreedily(context, [preparePrompt(model, {...reply, stopTriggers})], {maxTokens: 100});
    t.true(whole!.text.includes("\nResponse"));
    t.is(cut!.text, whole!.text.slice(0, whole!.text.indexOf("\nResponse")));
    t.is(cut!.stopReason, "end");
    await context.dispose();
});

test.serial("perplexity and divergence are those of a naive computation", async (t) => {
    const text = questions.map(({question}) => question).join("\n");
    const {windows, droppedTokens} = cutIntoWindows(model, [{id: "x", subject: "x", text}], 200);
    t.true(windows.length >= 2);
    t.true(droppedTokens < 200);
    t.deepEqual(windows[1]!.tokens.slice(0, 1), [model.tokens.bos!]);

    const {tokens} = windows[0]!;
    const context = await createEvaluationContext(model, {length: 200, sequences: 2});
    const [plain, steered] = await scoreWindow(context, windows[0]!, [{name: "plain", emulation: undefined}, {name: "all", emulation: {strength: 0.5}}]);
    await context.dispose();
    t.is(plain!.count, 99);

    const naive = async (emulation: object | undefined) => {
        const one = await model.createContext({contextSize: 256});
        if (emulation != null)
            emulateAttention(one, emulation);
        const outputs = await one.getSequence().controlledEvaluate(tokens.map((token) => (
            [token, {generateNext: {probabilities: true, options: {temperature: 0}}}] as [Token, object]
        )));
        await one.dispose();
        return outputs.map((output) => output!.next.probabilities!);
    };
    const [expected, changed] = [await naive(undefined), await naive({strength: 0.5})];
    let [plainLoss, steeredLoss, divergence] = [0, 0, 0];
    for (let index = 100; index < tokens.length - 1; index++) {
        plainLoss -= Math.log(expected[index]!.get(tokens[index + 1]!)!);
        steeredLoss -= Math.log(changed[index]!.get(tokens[index + 1]!)!);
        for (const [token, probability] of expected[index]!)
            if (probability > 0)
                divergence += probability * Math.log(probability / changed[index]!.get(token)!);
    }
    // F16 keys and values, and another order of sums
    t.true(Math.abs(plain!.loss - plainLoss) < 0.005 * plainLoss, `${plain!.loss}, not ${plainLoss}`);
    t.true(Math.abs(steered!.loss - steeredLoss) < 0.005 * steeredLoss, `${steered!.loss}, not ${steeredLoss}`);
    t.true(Math.abs(steered!.divergence - divergence) < 0.02 * divergence + 0.01, `${steered!.divergence}, not ${divergence}`);
    t.true(divergence > 0.01);
    t.is(plain!.divergence, 0);
    t.is(plain!.sameTop, plain!.count);
});
