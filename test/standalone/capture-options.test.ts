import test from "ava";
import {resolveCaptureOptions} from "#dist/inspect/options.js";
import {classOfText} from "#dist/inspect/tokenClasses.js";

const shape = {layers: [true, true, false, true], heads: 3};
const defaults = {sourceLayer: 1, threshold: 0.02};
const resolve = (options: unknown) => resolveCaptureOptions(options, shape, defaults);

test("defaults", (t) => {
    t.deepEqual(resolve({}), {
        layers: [0, 1, 3], heads: [0, 1, 2], queries: "all", topK: 0, weights: false, hiddenStates: false, logitLens: 0,
        sourceLayer: 1, threshold: 0.02
    });
    t.deepEqual(resolve({layers: undefined, threshold: undefined}), resolve({}));
    t.is(resolve({logitLens: true}).logitLens, 5);
    t.is(resolve({logitLens: 2}).logitLens, 2);
});

test("indices are sorted, and no index counts twice", (t) => {
    t.like(resolve({layers: [3, 0, 3], heads: [2, 1], queries: [9, 1, 5, 1]}), {layers: [0, 3], heads: [1, 2], queries: [1, 5, 9]});
    t.deepEqual(resolve({queries: []}).queries, []);
});

const refused: Array<[options: unknown, error: typeof TypeError | typeof RangeError, message: string]> = [
    [null, TypeError, "The options are null, but must be an object"],
    [{layer: 1}, TypeError,
        "layer is not an option; the options are sequence, layers, heads, queries, topK, weights, hiddenStates, logitLens, " +
        "sourceLayer, threshold, onRows"],
    [{layers: 1}, TypeError, 'layers is 1, but must be "all" or an array of numbers'],
    [{layers: []}, RangeError, "layers is empty, but must have one entry at least"],
    [{layers: [4]}, RangeError, "layers has 4, but must have whole numbers from 0 to 3: the model has 4 layers"],
    [{layers: [2]}, RangeError, "layers has 2, but that layer has no attention"],
    [{heads: ["1"]}, TypeError, 'heads has "1", but must have numbers only'],
    [{heads: [0.5]}, RangeError, "heads has 0.5, but must have whole numbers from 0 to 2: the model has 3 query heads"],
    [{queries: [-1]}, RangeError, "queries has -1, but must have whole numbers from 0 to 2147483647: they are positions in the sequence"],
    [{topK: -1}, RangeError, "topK is -1, but must be a whole number from 0 to 65536"],
    [{topK: "8"}, TypeError, 'topK is "8", but must be a number'],
    [{weights: 1}, TypeError, "weights is 1, but must be true or false"],
    [{hiddenStates: "yes"}, TypeError, 'hiddenStates is "yes", but must be true or false'],
    [{logitLens: "yes"}, TypeError, 'logitLens is "yes", but must be true, false or a number'],
    [{logitLens: 1.5}, RangeError, "logitLens is 1.5, but must be a whole number from 0 to 65536"],
    [{sourceLayer: 4}, RangeError, "sourceLayer is 4, but must be a whole number from 0 to 3"],
    [{threshold: 0}, RangeError, "threshold is 0, but must be between 0 and 1, exclusive"],
    [{threshold: null}, TypeError, "threshold is null, but must be a number"],
    [{onRows: true, topK: 1}, TypeError, "onRows is true, but must be a function"],
    [{onRows() {}}, TypeError, "onRows is given, but no rows are kept: ask for topK, weights, hiddenStates or logitLens"]
];
for (const [index, [options, error, message]] of refused.entries())
    test(`refused: ${index + 1}, ${message}`, (t) => void t.throws(() => resolve(options), {instanceOf: error, message}));

const texts: Array<[text: string, expected: string]> = [
    ["", "special"], [" ", "space"], ["\n\n", "space"], ["\u3000", "space"], [",", "punctuation"], [" (", "punctuation"], ["。", "punctuation"],
    ["…\n", "punctuation"], ["€", "punctuation"], ["the", "word"], [" a", "word"], ["7", "word"], ["你", "word"], ["'s", "word"], ["\ufffd", "word"]
];
for (const [index, [text, expected]] of texts.entries())
    test(`class ${index + 1}, ${JSON.stringify(text)}`, (t) => t.is(classOfText(text) as string, expected));
