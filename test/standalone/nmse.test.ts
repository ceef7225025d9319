import test from "ava";
import {nmse, worstNmse} from "../support/nmse.js";

test("the NMSE is the squared difference by the square of what is expected", (t) => {
    t.is(nmse([1, 2], [1, 2]), 0);
    t.is(nmse([3, 1], [3, 4]), 9 / 25);
    t.throws(() => nmse([1], [1, 2]), {message: "1 values can't be compared with 2"});
});

test("the worst NMSE is that of any position", (t) => {
    const expected = [[1], [1], [1]];
    t.is(worstNmse([[1], [1], [1]], expected), 0);
    for (const place of [0, 1, 2])
        t.is(worstNmse(expected.map((row, index) => index === place ? [3] : row), expected), 4);
    t.throws(() => worstNmse([[1]], expected), {message: "1 positions can't be compared with 3"});
});

test("a position that is no number is the worst, wherever it is", (t) => {
    const expected = [[1], [1], [1]];
    for (const place of [0, 1, 2])
        t.is(worstNmse(expected.map((_, index) => [index === place ? NaN : 2]), expected), NaN);
});
