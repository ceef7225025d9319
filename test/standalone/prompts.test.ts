import test from "ava";
import {isArmName, namedArms} from "#dist/evaluate/arms.js";
import {openReply} from "#dist/evaluate/conversation.js";
import {taskOf} from "#dist/evaluate/tasks.js";
import type {AttentionEmulationOptions} from "reattend";
import type {ChoiceItem} from "#dist/evaluate/item.js";
import type {ChoiceTask, TaskName} from "#dist/evaluate/tasks.js";

const item: ChoiceItem = {
    id: "1", subject: "college_mathematics", question: " What is it? ", options: ["one", "two", "three", " four"], answer: 1
};

/** The text without a chat template, and what may follow. */
function promptOf(task: TaskName, way: "letter" | "text"): [text: string, options: string[]] {
    const {message, opening, separator, options} = (taskOf(task) as ChoiceTask).prompt(item, way);
    return [openReply(message, {opening, separator, chatWrapper: undefined}).text as string, options];
}

test("prompts for log-likelihoods are lm-evaluation-harness's", (t) => {
    t.deepEqual(promptOf("mmlu", "letter"), [
        "The following are multiple choice questions (with answers) about college mathematics.\n\n" +
        "What is it?\nA. one\nB. two\nC. three\nD.  four\nAnswer:",
        [" A", " B", " C", " D"]
    ]);
    t.deepEqual(promptOf("piqa", "text"), ["Question:  What is it? \nAnswer:", [" one", " two", " three", "  four"]]);
    t.deepEqual(promptOf("social-iqa", "text"), ["Q:  What is it? \nA:", [" one", " two", " three", "  four"]]);
});

/** Of the same subject as `item`. */
const examples: ChoiceItem[] = [
    {id: "2", subject: "college_mathematics", question: "1+1=", options: ["1", "2", "3", "4"], answer: 1},
    {id: "3", subject: "college_mathematics", question: "Which is even? ", options: ["one", "three", "five", " six"], answer: 3}
];

test("examples stand before the question, each in the question's own form and with its answer, under one introduction", (t) => {
    const promptAfter = (task: TaskName, way: "letter" | "text") => {
        const {message, opening, separator, options} = (taskOf(task) as ChoiceTask).prompt(item, way, examples);
        return {text: openReply(message, {opening, separator, chatWrapper: undefined}).text, options};
    };
    const letters = [" A", " B", " C", " D"];
    t.deepEqual(promptAfter("mmlu", "letter"), {
        text: "The following are multiple choice questions (with answers) about college mathematics.\n\n" +
            "1+1=\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n" +
            "Which is even?\nA. one\nB. three\nC. five\nD.  six\nAnswer: D\n\n" +
            "What is it?\nA. one\nB. two\nC. three\nD.  four\nAnswer:",
        options: letters
    });
    t.deepEqual(promptAfter("choice", "letter"), {
        text: "1+1=\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n" +
            "Which is even?\nA. one\nB. three\nC. five\nD.  six\nAnswer: D\n\n" +
            "What is it?\nA. one\nB. two\nC. three\nD.  four\nAnswer:",
        options: letters
    });

    const texts = [" one", " two", " three", "  four"];
    const plain = "Question: 1+1=\nAnswer: 2\n\nQuestion: Which is even? \nAnswer:  six\n\nQuestion:  What is it? \nAnswer:";
    t.deepEqual(promptAfter("piqa", "text"), {text: plain, options: texts});
    t.deepEqual(promptAfter("mmlu", "text"), {text: plain, options: texts});
    t.deepEqual(promptAfter("social-iqa", "text"), {
        text: "Q: 1+1=\nA: 2\n\nQ: Which is even? \nA:  six\n\nQ:  What is it? \nA:", options: texts
    });
    t.deepEqual((taskOf("mmlu") as ChoiceTask).prompt(item, "letter", []), (taskOf("mmlu") as ChoiceTask).prompt(item, "letter"));
});

test("the prompt for written answers asks for an analysis and a response, and names the letters that there are", (t) => {
    const prompt = (taskOf("choice") as ChoiceTask).question({...item, options: ["x", "y", "z"]});
    t.regex(prompt, /"Analysis:"/);
    t.regex(prompt, /"Response:"[^"]*A, B or C\./);
    t.true(prompt.endsWith("What is it?\n\nA. x\nB. y\nC. z"));
    t.is((taskOf("embedded") as ChoiceTask).question(item), item.question);
});

test("a name stands for an arm of each strength; the first token's for two, of either sign", (t) => {
    const method = {threshold: 0.02, schedule: [1, 2], normalize: false} as const;
    t.deepEqual(namedArms("plain", [0.2, 1], {...method, schedule: [...method.schedule]}), [{name: "plain", emulation: undefined}]);
    t.deepEqual(namedArms("all", [0.2], {...method, schedule: "linear"}), [
        {name: "all", emulation: {threshold: 0.02, schedule: "linear", normalize: false, pattern: "all", strength: 0.2}}
    ]);
    t.deepEqual(namedArms("early-layer", [0.2, 1], {}).map(({name}) => name), ["early-layer@0.2", "early-layer@1"]);
    t.deepEqual(namedArms("first-token", [0.5], {normalize: false}), [
        {name: "first-token-up", emulation: {pattern: "first-token" as never, schedule: "constant", normalize: true, strength: 0.5}},
        {name: "first-token-down", emulation: {pattern: "first-token" as never, schedule: "constant", normalize: true, strength: -0.5}}
    ]);
    t.true(isArmName("random"));
    t.false(isArmName("some"));
});

test("the first token's weight is turned down by no more than all of it, and no two arms of it are the same", (t) => {
    const armsOf = (name: "first-token" | "first-token-down", ...strengths: number[]) => (
        namedArms(name, strengths, {}).map((arm) => [arm.name, (arm.emulation as AttentionEmulationOptions).strength])
    );
    t.deepEqual(armsOf("first-token", 2), [["first-token-up", 2], ["first-token-down", -1]]);
    t.deepEqual(armsOf("first-token", 0.2, -0.2), [["first-token-up@0.2", 0.2], ["first-token-down@0.2", -0.2]]);
    t.deepEqual(armsOf("first-token-down", 0.5, 2, 3), [["first-token-down@0.5", -0.5], ["first-token-down@1", -1]]);
});
