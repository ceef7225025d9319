import test from "ava";
import {compare, median} from "#dist/bench/summary.js";
import type {ExecutionContext} from "ava";

test("the median of an even number of values is the mean of the two in the middle", (t) => {
    t.is(median([3, 1, 2]), 2);
    t.is(median([4, 1, 3, 2]), 2.5);
});

test("the ratio is the median of those of pairs measured one after the other, and drift cancels", (t) => {
    const comparison = compare(10, [{on: [2, 40, 8], off: [1, 20, 2]}]);
    isClose(t, comparison.ratio, 0.5);
    isClose(t, comparison.on / comparison.off, 0.5);
    t.deepEqual(comparison.ratioQuartiles, [0.375, 0.5]);
    isClose(t, Math.sqrt(comparison.on * comparison.off), 10 / 4); // the pair in the middle takes 4 s
});

test("the pieces of a prompt are added up", (t) => {
    const comparison = compare(12, [{on: [1, 1], off: [1, 1]}, {on: [5, 5], off: [2, 2]}]);
    isClose(t, comparison.on, 2);
    isClose(t, comparison.off, 4);
    isClose(t, comparison.ratio, 0.5);
    t.deepEqual(comparison.ratioQuartiles, [0.5, 0.5]);
});

function isClose(t: ExecutionContext, actual: number, expected: number): void {
    t.true(Math.abs(actual - expected) < 1e-12, `${actual}, expected ${expected}`);
}
