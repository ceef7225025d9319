import {DataError} from "./item.js";
import {readChoice} from "./tasks/choice.js";
import {embeddedQuestionsPath, readEmbedded} from "./tasks/embedded.js";
import {readFreeForm} from "./tasks/freeForm.js";
import {readPiqa, readSocialIqa} from "./tasks/labelled.js";
import {mmluExampleFile, readMmlu} from "./tasks/mmlu.js";
import {readTexts} from "./tasks/text.js";
import {analysisPrompt, answeredPrompt, letterPrompt, mmluIntroduction, textPrompt} from "./prompts.js";
import type {ChoiceItem, Data, FreeFormItem, TextItem} from "./item.js";
import type {ChoicePrompt} from "./prompts.js";

/**
 * How an answer is had.
 * - **`"letter"`** - the likeliest letter after the question and its options.
 * - **`"text"`** - the likeliest text of an option after the question alone.
 * - **`"generation"`** - read from an analysis and response that the model writes.
 */
export type Way = "letter" | "text" | "generation";

export const ways = ["letter", "text", "generation"] as const satisfies Way[];

export type ChoiceTask = {
    kind: "choice",

    /** the first is the default */
    ways: readonly [Way, ...Way[]],

    /** where the data is, if one need not say so */
    defaultData?: string,

    /** Whether its prompts are made for a chat template, and nothing else. */
    needsTemplate?: boolean,
    read(fileOrFolder: string): Promise<Data<ChoiceItem>>,

    /**
     * Where the examples for a file of the data are, if that is settled.
     * @throws {DataError} if they aren't there
     */
    exampleFile?(dataFile: string): Promise<string>,

    /** for log-likelihoods, after examples that are answered in the same form */
    prompt(item: ChoiceItem, way: Exclude<Way, "generation">, examples?: readonly ChoiceItem[]): ChoicePrompt,

    /** for generation */
    question(item: ChoiceItem): string
};

export type FreeFormTask = {
    kind: "free-form",
    ways: readonly ["generation"],
    read(fileOrFolder: string, pattern: string | undefined): Promise<Data<FreeFormItem>>
};

export type TextTask = {
    kind: "text",
    ways: readonly [],
    read(fileOrFolder: string): Promise<Data<TextItem>>
};

const plainLabels = {question: "Question:", answer: "Answer:"};

/** The prompt of tasks whose questions are answered by a letter or a text, introduced by what is said of their subject. */
function labelledPrompt(labels: {question: string, answer: string}, introduction?: (subject: string) => string): ChoiceTask["prompt"] {
    return (item, way, examples = []) => {
        const promptOf = (one: ChoiceItem) => way === "letter"
            ? letterPrompt(one)
            : textPrompt(one, labels);
        const introduced = way === "letter"
            ? introduction?.(item.subject) ?? ""
            : "";
        const prompt = promptOf(item);
        const answered = examples.map((example) => answeredPrompt(promptOf(example), example.answer));
        return {...prompt, message: [introduced, ...answered, prompt.message].join("")};
    };
}

/** All tasks, by the name that the command line has for them. */
export const tasks = {
    "mmlu": {
        kind: "choice",
        ways: ["letter", "text", "generation"],
        read: readMmlu,
        exampleFile: mmluExampleFile,
        prompt: labelledPrompt(plainLabels, mmluIntroduction),
        question: analysisPrompt
    },
    "piqa": {
        kind: "choice",
        ways: ["text", "letter", "generation"],
        read: readPiqa,
        prompt: labelledPrompt(plainLabels),
        question: analysisPrompt
    },
    "social-iqa": {
        kind: "choice",
        ways: ["text", "letter", "generation"],
        read: readSocialIqa,
        prompt: labelledPrompt({question: "Q:", answer: "A:"}),
        question: analysisPrompt
    },
    "choice": {
        kind: "choice",
        ways: ["letter", "text", "generation"],
        read: readChoice,
        prompt: labelledPrompt(plainLabels),
        question: analysisPrompt
    },
    "free-form": {
        kind: "free-form",
        ways: ["generation"],
        read: readFreeForm
    },
    "embedded": {
        kind: "choice",
        ways: ["generation", "letter"],
        defaultData: embeddedQuestionsPath,
        needsTemplate: true,
        read: readEmbedded,
        // its question lists the options already, and it has learnt to answer without being told how
        prompt: (item) => ({...letterPrompt(item), message: item.question, opening: "Response:"}),
        question: ({question}) => question
    },
    "text": {
        kind: "text",
        ways: [],
        read: readTexts
    }
} as const satisfies Record<string, ChoiceTask | FreeFormTask | TextTask>;

export type TaskName = keyof typeof tasks;

export function taskOf(name: TaskName): ChoiceTask | FreeFormTask | TextTask {
    return tasks[name];
}

/** @throws {DataError} where two items have one id: results are kept by it */
export function checkIds(items: ReadonlyArray<{id: string}>): void {
    const seen = new Set<string>();
    for (const {id} of items) {
        if (seen.has(id))
            throw new DataError(`two items of the data have the id ${JSON.stringify(id)}`);
        seen.add(id);
    }
}
