import test from "ava";
import {readAnswer, readFreeForm} from "#dist/evaluate/answer.js";
import {likeliest, likeliestNormalized} from "#dist/evaluate/evaluate.js";

const options = ["A school", "the hall", "park", "I"];

const answers: Array<[text: string, letter: string | undefined, options?: string[]]> = [
    ["Response: A or B", undefined],
    ["Response: A, B", undefined],
    ["Response: A/B", undefined],
    ["Response: A-B", undefined],
    ["Response: (A) and (C)", undefined],
    ["Response: B & C", undefined],
    ["Response: Both B and C", undefined],
    ["Response: The answer is A and B", undefined],
    ["Response: A hall is where it is", undefined],
    ["Response: A small room", undefined, options],
    ["Response: A because it is", "A"],
    ["Response: A is right", "A"],
    ["Response: A school", "A", options],
    ["Response: A. school", "A"],
    ["Response: I'm not sure", undefined],
    ["Response: I think the answer is C", "C"],
    ["Response: None of the above", undefined],
    ["Response: A is wrong, so B", undefined],
    ["Response: B isn't it", undefined],
    ["Response: B, I think", "B"],
    ["Response: The answer is B.", "B"],
    ["Response: The correct option is **(C)**", "C"],
    ["Response: I choose option D", "D"],
    ["Response: the answer is not B", undefined],
    ["Response: The answer isn't B", undefined],
    ["Response: the hall.", "B", options],
    ["Response: The Hall", "B", options],
    ["Response: the hall or the park", undefined, options],
    ["Response: same", undefined, ["same", "same"]],
    ["Response: $\\boxed{B}$", "B"],
    ["Response: \\boxed{\\text{D}}", "D"],
    ["Response: \\boxed{A} or \\boxed{B}", undefined],
    ["### Response:\n\n**D. park**", "D"],
    ["Response: c)", "C"],
    ["Response: c) park", undefined],
    ["Response: E", undefined, options],
    ["Response: [B]", "B"],
    ["Response: “B”", "B"],
    ["Response: D\n\nQuestion 2: What?\nAnalysis: It is", "D"],
    ["Answer: C", "C"],
    ["Answer: C\nResponse: D", "D"],
    ["The answer is plainly B", undefined],
    ["Response: (B) not allowed", "B", ["allowed", "not allowed"]],
    ["Response: (B) not allowed", undefined],
    ["Response: B, a hall", "B", ["a room", "a hall"]],
    ["Response: B, a hall", "B"],
    ["Response: A or b", undefined],
    ["Response: The answer is B or C", undefined],
    ["Response: D\nAnd a murderer", "D"],
    ["Response: Kant's view", "B", ["Hume's view", "Kant's view"]],
    ["Response: $5", "B", ["$4", "$5"]],
    ["Response: 0", "B", ["1", "0"]],
    ["Response: G is abelian", "A", ["G is abelian", "G is cyclic"]],
    ["Response: Dürer", "B", ["Bosch", "Dürer"]],
    ["Response: Dürer", undefined],
    ["Response: D major", "B", ["C major", "D major", "E major", "F major"]],
    ["Response: C", "C", ["B", "C", "D"]],
    ["Response: The answer is A hall", undefined, ["the attic", "hall"]],
    ["Response: The answer is A", "A", ["the attic", "hall"]],
    ["Response:", undefined],
    ["Response: ***", undefined]
];

for (const [text, letter, texts] of answers) {
    test(`the answer in ${JSON.stringify(text)}${texts == null ? "" : ` of ${texts.join(", ")}`} is ${letter ?? "unreadable"}`, (t) => {
        t.is(readAnswer(text, texts), letter);
    });
}

test("free-form answers: the last match, its first group, numbers as numbers", (t) => {
    t.deepEqual(readFreeForm("a 1, b 2", "(\\d+)", "2"), {found: "2", right: true});
    t.deepEqual(readFreeForm("= 1,200.50", "= ([\\d.,]+)", "1200.5"), {found: "1,200.50", right: true});
    t.deepEqual(readFreeForm("It is PARIS ", "is (\\w+)", "Paris"), {found: "PARIS", right: true});
    t.deepEqual(readFreeForm("yes", "(no)|(yes)", "yes"), {found: "yes", right: true});
    t.deepEqual(readFreeForm("well, yes", "yes", undefined), {found: "yes", right: true});
    t.deepEqual(readFreeForm("7", "(\\d+)", "8"), {found: "7", right: false});
    t.deepEqual(readFreeForm("x 1,5", "x (\\S+)", "15"), {found: "1,5", right: false});
    t.deepEqual(readFreeForm(",5", ".+", "5"), {found: ",5", right: false});
    t.deepEqual(readFreeForm("-1,234,567", ".+", "-1234567"), {found: "-1,234,567", right: true});
    t.deepEqual(readFreeForm(".5", ".+", "0.50"), {found: ".5", right: true});
    t.deepEqual(readFreeForm("+007.0", ".+", "7"), {found: "+007.0", right: true});
    t.deepEqual(readFreeForm("-0", ".+", "0.0"), {found: "-0", right: true});
    t.deepEqual(readFreeForm("9007199254740993", ".+", "9007199254740992"), {found: "9007199254740993", right: false});
    t.deepEqual(readFreeForm("seven", "(\\d+)", "7"), {found: undefined, right: false});
    t.deepEqual(readFreeForm("", ".*", ""), {found: "", right: true});
});

test("acc and acc_norm: lengths are those of the texts in characters, and the first of equal ones counts", (t) => {
    t.is(likeliest([-3, -2, -2]), 1);
    t.is(likeliestNormalized([-4, -6], ["ab", "abcd"]), 1);  // -2 and -1.5 per character
    t.is(likeliestNormalized([-2, -3], ["💧💧", "abc"]), 0); // -1 each: a code point is a character, as in Python
});
