import process from "node:process";
import {fileURLToPath} from "node:url";
import Table from "cli-table3";
import {LlamaChatSession} from "../index.js";
import {readAnswer} from "../evaluate/answer.js";
import {chooseQuestions, readQuestions} from "../evaluate/questions.js";
import {mcnemarExact, wilsonInterval} from "../evaluate/statistics.js";
import {exitCode} from "./failure.js";
import {emulationOptions} from "./flags.js";
import {abortOnInterrupt} from "./interruption.js";
import {chatWrapperFor, openModel, startEmulation} from "./model.js";
import {startProgress} from "./progress.js";
import {colorsFor, note, print, printJson, wrap} from "./terminal.js";
import type {Question} from "../evaluate/questions.js";
import type {EmulationFlags, ModelFlags} from "./flags.js";

export type DemoFlags = ModelFlags & EmulationFlags & {
    questions: number,
    show: number,
    seed: number,
    json?: boolean
};

const questionsFile = fileURLToPath(new URL("../../models/questions.jsonl", import.meta.url));

/** An answer of the embedded model has some 40 tokens; one that is this long leads nowhere. */
const maxAnswerTokens = 120;

type Answer = {
    text: string,
    letter: string | undefined,
    right: boolean,
    tokens: number,
    seconds: number
};

type Item = Question & {plain: Answer, steered: Answer};

export async function runDemo(flags: DemoFlags): Promise<void> {
    const questions = chooseQuestions(await readQuestions(questionsFile), flags.questions, flags.seed);
    const signal = abortOnInterrupt();
    await using opened = await openModel(flags);
    const {model, context: plainContext} = opened;

    // a context that never had an emulation, and one that has it
    const steeredContext = await model.createContext({
        contextSize: plainContext.contextSize, threads: flags.threads, flashAttention: flags.flashAttention
    });
    using emulation = startEmulation(steeredContext, emulationOptions(flags));
    const chatWrapper = chatWrapperFor(model, flags.model);
    const arms = {
        plain: new LlamaChatSession({contextSequence: plainContext.getSequence(), chatWrapper}),
        steered: new LlamaChatSession({contextSequence: steeredContext.getSequence(), chatWrapper})
    };

    note(`Asking ${model.filename ?? flags.model} ${questions.length} questions that it was not trained on, plain and steered ` +
        `(strength ${emulation.strength}) ...`);
    using progress = startProgress("");
    const items: Item[] = [];
    for (const session of Object.values(arms)) // so that the first question isn't slower than the others
        await ask(session, questions[0]!, signal);
    for (const [index, question] of questions.entries()) {
        progress.text = `question ${index + 1} of ${questions.length}: ${question.family}`;
        const answers: Partial<Record<keyof typeof arms, Answer>> = {};
        for (const arm of index % 2 === 0 ? ["plain", "steered"] as const : ["steered", "plain"] as const)
            answers[arm] = await ask(arms[arm], question, signal);
        if (signal.aborted)
            break;
        items.push({...question, ...answers as Required<typeof answers>});
    }
    progress.stop();
    if (signal.aborted) {
        process.exitCode = exitCode.interrupted;
        return;
    }

    const summary = summarize(items);
    if (flags.json)
        printJson({
            model: flags.model, emulation: {...emulation.options, kernel: emulation.report().kernel}, seed: flags.seed, ...summary, items
        });
    else
        print(layOut(items, summary, flags.show));
}

/** The likeliest answer of the model, in a conversation of its own. */
async function ask(session: LlamaChatSession, {question, answer}: Question, signal: AbortSignal): Promise<Answer> {
    session.resetChatHistory();
    const start = performance.now();
    let tokens = 0;
    const text = await session.prompt(question, {
        temperature: 0,
        repeatPenalty: false,
        maxTokens: maxAnswerTokens,
        signal,
        stopOnAbortSignal: true,
        onToken: (chunk) => {
            tokens += chunk.length;
        }
    }).catch((error: unknown) => {
        if (!signal.aborted)
            throw error;
        return "";
    });
    const seconds = (performance.now() - start) / 1000;

    const letter = readAnswer(text);
    return {text, letter, right: letter === answer, tokens, seconds};
}

type Summary = ReturnType<typeof summarize>;

function summarize(items: readonly Item[]) {
    const plain = summarizeArm(items.map((item) => item.plain));
    const steered = summarizeArm(items.map((item) => item.steered));
    const onlyPlain = items.filter((item) => item.plain.right && !item.steered.right).length;
    const onlySteered = items.filter((item) => !item.plain.right && item.steered.right).length;
    return {
        plain,
        steered,
        onlyPlain,
        onlySteered,
        mcnemar: mcnemarExact(onlyPlain, onlySteered),
        speedRatio: steered.tokensPerSecond / plain.tokensPerSecond
    };
}

function summarizeArm(answers: readonly Answer[]) {
    const right = answers.filter((answer) => answer.right).length;
    const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
    const seconds = answers.reduce((sum, answer) => sum + answer.seconds, 0);
    return {
        right,
        count: answers.length,
        accuracy: right / answers.length,
        interval: wilsonInterval(right, answers.length),
        unreadable: answers.filter(({letter}) => letter == null).length,
        tokens,
        seconds,
        tokensPerSecond: tokens / seconds
    };
}

function layOut(items: readonly Item[], summary: Summary, show: number): string {
    const colors = colorsFor(process.stdout);
    const verdict = ({right}: Answer) => right ? colors.green("right") : colors.red("wrong");

    const shown = chooseToShow(items, show).map((item) => [
        colors.bold(`${item.family}`) + colors.dim(` (right: ${item.answer})`),
        indent(item.question),
        ...(["plain", "steered"] as const).map((arm) => (
            `${arm}, ${verdict(item[arm])}:\n${indent(item[arm].text.trim())}`
        )),
        ""
    ].join("\n"));

    const table = new Table({
        head: ["", "right", "95 % interval", "tokens", "tokens/s", "unreadable"],
        colAligns: ["left", "right", "right", "right", "right", "right"],
        style: {head: [], border: []}
    });
    for (const arm of ["plain", "steered"] as const) {
        const {right, count, accuracy, interval, tokens, tokensPerSecond, unreadable} = summary[arm];
        table.push([
            arm,
            colors.bold(`${right} of ${count}, ${percent(accuracy)} %`),
            `${interval.map(percent).join(" to ")} %`,
            tokens,
            tokensPerSecond.toFixed(0),
            unreadable
        ]);
    }

    const {onlyPlain, onlySteered, mcnemar, speedRatio} = summary;
    return [
        ...shown,
        table.toString(),
        ...[
            `Right only when plain: ${onlyPlain}; right only when steered: ${onlySteered}. ` +
            `Exact McNemar test: p = ${mcnemar.toFixed(2)}, ${mcnemar < 0.05 ? "seldom by chance alone" : "well within chance"}.`,
            `Speed, steered ÷ plain: ${speedRatio.toFixed(2)}, on a model so small that most of the time goes by outside of it; ` +
            "`reattend bench` measures properly."
        ].map((line) => wrap(line, process.stdout))
    ].join("\n");
}

/** First those where steering made a difference to the mark, then to the text. */
function chooseToShow(items: readonly Item[], count: number): Item[] {
    const interest = ({plain, steered}: Item) => (
        plain.right !== steered.right
            ? 2
            : plain.text !== steered.text
                ? 1
                : 0
    );
    return items.toSorted((a, b) => interest(b) - interest(a)).slice(0, count);
}

function indent(text: string): string {
    return wrap(text, process.stdout, {indent: 4});
}

function percent(share: number): string {
    return (100 * share).toFixed(0);
}
