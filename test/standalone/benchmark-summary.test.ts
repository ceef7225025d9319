import test from "ava";
import {compare, median} from "#dist/bench/summary.js";

test("the median of an even number of values is the mean of the two in the middle", (t) => {
    t.is(median([3, 1, 2]), 2);
    t.is(median([4, 1, 3, 2]), 2.5);
});

test("ratios are speed with emulation ÷ speed without, of the medians", (t) => {
    const comparison = compare(10, [{on: 2, off: 1}, {on: 2, off: 2}, {on: 50, off: 2}]);
    t.deepEqual(comparison, {on: 5, off: 5, ratio: 1, ratioRange: [0.04, 1]});
});
