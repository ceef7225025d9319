import {compare, median} from "#dist/bench/summary.js";

/**
 * Lets contestants do the same work in turns, as the speed of a machine changes all the time; who begins alternates.
 * @param {Record<string, () => Promise<T>>} contestants
 * @param {number} rounds
 * @param {(round: number) => void} [onRound]
 * @param {boolean} [reversed] whether the last one begins in the first round
 * @returns {Promise<Record<string, T[]>>} what each yielded, in each round
 * @template T
 */
export async function takeTurns(contestants, rounds, onRound, reversed = false) {
    const entries = Object.entries(contestants);
    const results = Object.fromEntries(entries.map(([name]) => [name, []]));
    for (let round = 0; round < rounds; round++) {
        onRound?.(round);
        for (const [name, block] of (round % 2 === 0) === reversed ? entries.toReversed() : entries)
            results[name].push(await block());
    }
    return results;
}

/**
 * How many times as fast one contestant is as the other: the median of pairs measured in the same round.
 * @param {number[]} ours seconds, or whatever else is the better the less it is
 * @param {number[]} theirs
 */
export function timesAsFast(ours, theirs) {
    const {ratio, ratioQuartiles} = compare(1, [{on: ours, off: theirs}]);
    return {ratio, quartiles: ratioQuartiles, pairs: ours.length};
}

/** A row's cell for one of our kinds: its value, and how it compares with the row's other. */
export function cell(ours, theirs, valueOf) {
    return {value: valueOf(median(ours)), ...timesAsFast(ours, theirs)};
}

/**
 * A row of the table: one piece of work by another, and by ours, plain and steered.
 * @param {object} row
 * @param {string} row.what
 * @param {string} row.unit
 * @param {string} row.other who does it instead
 * @param {number[]} row.theirs seconds that one took, each time
 * @param {number[]} [row.plain]
 * @param {number[]} [row.steered]
 * @param {(seconds: number) => number} row.valueOf what the table shows of a time
 * @param {number} [row.goal] times as fast, at least
 * @param {string} [row.note]
 */
export function makeRow({what, unit, other, theirs, plain, steered, valueOf, goal, note}) {
    return {
        what,
        unit,
        other: {name: other, value: valueOf(median(theirs))},
        ...(plain == null ? {} : {plain: cell(plain, theirs, valueOf)}),
        ...(steered == null ? {} : {steered: cell(steered, theirs, valueOf)}),
        ...(goal == null ? {} : {goal}),
        ...(note == null ? {} : {note})
    };
}

/** Of the seconds that one token took. */
export const tokensPerSecond = {unit: "tokens/s", valueOf: (seconds) => 1 / seconds};
export const milliseconds = {unit: "ms", valueOf: (seconds) => seconds * 1000};
