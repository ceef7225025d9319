import test from "ava";
import {resolveOptions} from "#dist/emulation/options.js";

const shape = {layers: 4, heads: 2};

test("the defaults are the authors'", (t) => {
    const {options, gains} = resolveOptions({}, shape);
    t.deepEqual(options, {
        strength: 0.2,
        threshold: 0.01,
        sourceLayer: 0,
        schedule: "linear",
        pattern: "early-layer",
        seed: 0,
        normalize: false,
        kernel: "auto"
    });
    t.deepEqual(gains, Float64Array.of(1, 1, 1 - 1 / 3, 1 - 1 / 3, 1 - 2 / 3, 1 - 2 / 3, 0, 0));
});

test("an option that is undefined has its default", (t) => {
    t.is(resolveOptions({strength: undefined}, shape).options.strength, 0.2);
});

const schedules: Array<[schedule: unknown, gains: number[]]> = [
    ["constant", [1, 1, 1, 1, 1, 1, 1, 1]],
    [[4, 3, 2, 1], [4, 4, 3, 3, 2, 2, 1, 1]],
    [Float32Array.of(4, 3, 2, 1), [4, 4, 3, 3, 2, 2, 1, 1]],
    [[[8, 7], [6, 5], [4, 3], [2, 1]], [8, 7, 6, 5, 4, 3, 2, 1]],
    [[Float32Array.of(8, 7), [6, 5], [4, 3], [2, 1]], [8, 7, 6, 5, 4, 3, 2, 1]]
];
for (const [index, [schedule, expected]] of schedules.entries()) {
    test(`gains of a schedule, ${index}`, (t) => {
        t.deepEqual(resolveOptions({schedule}, shape).gains, Float64Array.from(expected));
    });
}

test("the resolved options can't be changed from outside", (t) => {
    const schedule = [0, 1, 1, 0];
    const {options} = resolveOptions({schedule}, shape);
    schedule[1] = 5;
    t.deepEqual(options.schedule, [0, 1, 1, 0]);
    t.true(Object.isFrozen(options));
});

const allowed: object[] = [
    {strength: -1},
    {strength: 0},
    {strength: 1000},
    {strength: -1, schedule: "constant"},
    {strength: -1 / 3, schedule: [0, 3, 0, 0]}, // -1/3 times 3 is below -1 unless rounded
    {strength: -1, schedule: [5, 1, 1, 1]}, // the source layer's gain has no effect
    {strength: -1, schedule: [5, 5, 1, 1], sourceLayer: 1},
    {strength: 4, schedule: [0, -0.25, 0, 0]},
    {threshold: 0.999},
    {threshold: 1e-30},
    {sourceLayer: 2},
    {pattern: "all"},
    {pattern: "random", seed: 2 ** 32 - 1},
    {pattern: "first-token"},
    {normalize: true},
    {kernel: "dense"}
];
for (const options of allowed) {
    test(`allowed: ${JSON.stringify(options)}`, (t) => {
        t.notThrows(() => resolveOptions(options, shape));
    });
}

const refused: Array<[options: unknown, error: typeof TypeError | typeof RangeError, message: string]> = [
    [null, TypeError, "The options are null, but must be an object"],
    [5, TypeError, "The options are 5, but must be an object"],
    [[], TypeError, "The options are an array, but must be an object"],
    [
        {treshold: 0.1}, TypeError,
        "treshold is not an option; the options are strength, threshold, sourceLayer, schedule, pattern, seed, normalize, kernel"
    ],
    [
        {toString: 1}, TypeError,
        "toString is not an option; the options are strength, threshold, sourceLayer, schedule, pattern, seed, normalize, kernel"
    ],

    [{strength: "0.2"}, TypeError, 'strength is "0.2", but must be a number'],
    [{strength: null}, TypeError, "strength is null, but must be a number"],
    [{strength: NaN}, RangeError, "strength is NaN, but must be a finite number of at least -1"],
    [{strength: Infinity}, RangeError, "strength is Infinity, but must be a finite number of at least -1"],
    [{strength: 1e39}, RangeError, "strength is 1e+39, but must be a finite number of at least -1"],
    [{strength: -1.001}, RangeError, "strength is -1.001, but must be a finite number of at least -1"],
    [
        {strength: -0.75, schedule: [0, 2, 0, 0]}, RangeError,
        "strength is -0.75, but with this schedule must be from -0.5 to 499.5, so that no attention weight gets below 0 or more than 1000 times as large"
    ],
    [
        {strength: 5, schedule: [0, 2, -0.25, 0]}, RangeError,
        "strength is 5, but with this schedule must be from -0.5 to 4, so that no attention weight gets below 0 or more than 1000 times as large"
    ],
    [
        {schedule: [0, 0, -8, 0]}, RangeError,
        "strength is 0.2, but with this schedule must be from -1 to 0.125, so that no attention weight gets below 0 or more than 1000 times as large"
    ],
    [
        {schedule: [[0, 0], [0, 0], [0, -8], [0, 0]]}, RangeError,
        "strength is 0.2, but with this schedule must be from -1 to 0.125, so that no attention weight gets below 0 or more than 1000 times as large"
    ],

    [
        {strength: 1000, schedule: "constant"}, RangeError,
        "strength is 1000, but with this schedule must be from -1 to 999, so that no attention weight gets below 0 or more than 1000 times as large"
    ],

    [{threshold: "0.01"}, TypeError, 'threshold is "0.01", but must be a number'],
    [{threshold: 0}, RangeError, "threshold is 0, but must be between 0 and 1, exclusive"],
    [{threshold: 1}, RangeError, "threshold is 1, but must be between 0 and 1, exclusive"],
    [{threshold: -0.1}, RangeError, "threshold is -0.1, but must be between 0 and 1, exclusive"],
    [{threshold: NaN}, RangeError, "threshold is NaN, but must be between 0 and 1, exclusive"],
    [{threshold: 1e-50}, RangeError, "threshold is 1e-50, but must be between 0 and 1, exclusive"],
    [{threshold: 1 - 1e-12}, RangeError, "threshold is 0.999999999999, but must be between 0 and 1, exclusive"],

    [{sourceLayer: "0"}, TypeError, 'sourceLayer is "0", but must be a number'],
    ...[-1, 0.5, 3, 4, NaN, Infinity].map((sourceLayer): [object, typeof RangeError, string] => [
        {sourceLayer}, RangeError,
        `sourceLayer is ${sourceLayer}, but must be a whole number from 0 to 2: ` +
        "the model has 4 layers, and only those after the source layer are changed"
    ]),

    ...["cubic", 1, null, {}, true].map((schedule): [object, typeof TypeError, string] => [
        {schedule}, TypeError,
        `schedule is ${schedule !== null && typeof schedule === "object" ? "an object" : JSON.stringify(schedule)}, ` +
        'but must be "linear", "constant", an array of numbers or an array of arrays of numbers'
    ]),
    [{schedule: []}, RangeError, "schedule has 0 entries, but must have 4, one for each layer of the model"],
    [{schedule: [1, 1, 1, 1, 1]}, RangeError, "schedule has 5 entries, but must have 4, one for each layer of the model"],
    [{schedule: new Float32Array(3)}, RangeError, "schedule has 3 entries, but must have 4, one for each layer of the model"],
    [{schedule: [1, 1, "1", 1]}, TypeError, 'schedule[2] is "1", but must be a number'],
    [{schedule: [1, 1, 1, [1, 1]]}, TypeError, "schedule[3] is an array, but must be a number"],
    [{schedule: [1, NaN, 1, 1]}, RangeError, "schedule[1] is NaN, but must be a finite number"],
    [{schedule: [NaN, 1, 1, 1]}, RangeError, "schedule[0] is NaN, but must be a finite number"],
    [{schedule: [1, 1e39, 1, 1]}, RangeError, "schedule[1] is 1e+39, but must be a finite number"],
    [{schedule: [[1, 1], [1, 1], 1, [1, 1]]}, TypeError, "schedule[2] is 1, but must be an array of numbers, as schedule[0] is"],
    [
        {schedule: [[1, 1], [1, 1], [1], [1, 1]]}, RangeError,
        "schedule[2] has 1 entries, but must have 2, one for each query head of the layer"
    ],
    [{schedule: [[1, 1], [1, Infinity], [1, 1], [1, 1]]}, RangeError, "schedule[1][1] is Infinity, but must be a finite number"],
    [{schedule: [[1, 1], [1, "1"], [1, 1], [1, 1]]}, TypeError, 'schedule[1][1] is "1", but must be a number'],
    // eslint-disable-next-line no-sparse-arrays
    [{schedule: [1, , 1, 1]}, TypeError, "schedule[1] is undefined, but must be a number"],

    [{pattern: "late-layer"}, TypeError, 'pattern is "late-layer", but must be "early-layer", "all", "random" or "first-token"'],
    [{pattern: null}, TypeError, 'pattern is null, but must be "early-layer", "all", "random" or "first-token"'],
    [{seed: "1"}, TypeError, 'seed is "1", but must be a number'],
    ...[-1, 0.5, 2 ** 32, NaN].map((seed): [object, typeof RangeError, string] => [
        {seed}, RangeError, `seed is ${seed}, but must be a whole number from 0 to 4294967295`
    ]),
    [{normalize: 1}, TypeError, "normalize is 1, but must be true or false"],
    [{normalize: "false"}, TypeError, 'normalize is "false", but must be true or false'],
    [{kernel: "fused"}, TypeError, 'kernel is "fused", but must be "auto" or "dense"']
];
for (const [index, [options, error, message]] of refused.entries()) {
    test(`refused, ${index}: ${message}`, (t) => {
        t.throws(() => resolveOptions(options, shape), {instanceOf: error, message});
    });
}

test("a model of one layer has nothing to change", (t) => {
    t.throws(() => resolveOptions({}, {layers: 1, heads: 2}), {
        instanceOf: RangeError,
        message: "sourceLayer is 0, but the model has no layer after its first one that could be changed"
    });
});

test("a schedule of zeros is allowed with any strength", (t) => {
    t.notThrows(() => resolveOptions({schedule: [0, 0, 0, 0], strength: 1000}, shape));
});
