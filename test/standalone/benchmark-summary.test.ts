import test from "ava";
import {compare, median} from "#dist/bench/summary.js";

test("the median of an even number of values is the mean of the two in the middle", (t) => {
    t.is(median([3, 1, 2]), 2);
    t.is(median([4, 1, 3, 2]), 2.5);
});

test("ratios are speed with emulation ÷ speed without, of the medians", (t) => {
    const comparison = compare(10, [{on: [2, 2, 50], off: [1, 2, 2]}]);
    t.deepEqual(comparison, {on: 5, off: 5, ratio: 1, ratioQuartiles: [(0.04 + 0.5) / 2, 0.75]});
});

test("the pieces of a prompt are added up", (t) => {
    const comparison = compare(12, [{on: [1, 1], off: [1, 1]}, {on: [5, 5], off: [2, 2]}]);
    t.deepEqual(comparison, {on: 2, off: 4, ratio: 0.5, ratioQuartiles: [0.5, 0.5]});
});
