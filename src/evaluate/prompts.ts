import {letterOf} from "./item.js";
import type {ChoiceItem, FreeFormItem} from "./item.js";

/*
 * What a model is asked. Those for log-likelihoods are lm-evaluation-harness's, so that its numbers can be compared with; those
 * for generation have the form of the paper's, an analysis and then a response.
 */

/** A prompt and what may follow it. */
export type ChoicePrompt = {
    /** what a user would say, where a chat template is used */
    message: string,

    /** how the reply begins */
    opening: string,

    /** how they become one text where no template is used */
    separator: string,

    /** how the reply may go on */
    options: string[]
};

/** The letter of the right option is to follow. */
export function letterPrompt({question, options}: ChoiceItem): ChoicePrompt {
    return {
        message: `${question.trim()}\n${listOptions(options, ". ")}`,
        opening: "Answer:",
        separator: "\n",
        options: options.map((_, index) => ` ${letterOf(index)}`)
    };
}

/** The text of the right option is to follow; the model doesn't see the others. */
export function textPrompt({question, options}: ChoiceItem, labels: {question: string, answer: string}): ChoicePrompt {
    return {
        message: `${labels.question} ${question}`,
        opening: labels.answer,
        separator: "\n",
        options: options.map((option) => ` ${option}`)
    };
}

/** An example: a prompt that goes on as it should. */
export function answeredPrompt({message, separator, opening, options}: ChoicePrompt, answer: number): string {
    return `${message}${separator}${opening}${options[answer]!}\n\n`;
}

/** lm-evaluation-harness begins each question of MMLU so, and what examples it has come next. */
export function mmluIntroduction(subject: string): string {
    return `The following are multiple choice questions (with answers) about ${subject.replaceAll("_", " ")}.\n\n`;
}

/** A question to be thought about in writing, and answered with a letter. */
export function analysisPrompt({question, options}: ChoiceItem): string {
    const letters = options.map((_, index) => letterOf(index));
    const list = `${letters.slice(0, -1).join(", ")} or ${letters.at(-1)}`;
    return "Answer the multiple-choice question below in two parts. The first part begins with \"Analysis:\" and weighs the options one " +
        "after another: what speaks for each of them and what against it. The second part begins with \"Response:\" and is nothing but " +
        `the letter of the right option, ${list}.\n\n${question.trim()}\n\n${listOptions(options, ". ")}`;
}

/** A question to be thought about in writing, and answered in words. */
export function freeFormPrompt({question}: FreeFormItem): string {
    return "Answer the question below in two parts. The first part begins with \"Analysis:\" and is how you find the answer. The second " +
        `part begins with "Response:" and is nothing but the answer.\n\n${question.trim()}`;
}

/** Where no template says that it is the model's turn, this does. */
export const analysisOpening = "\n\nAnalysis:";

function listOptions(options: readonly string[], mark: string): string {
    return options.map((option, index) => `${letterOf(index)}${mark}${option}`).join("\n");
}
