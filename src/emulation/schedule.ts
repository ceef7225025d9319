import {show} from "./show.js";
import type {AttentionShape} from "./shape.js";

type Numbers = readonly number[] | Float32Array | Float64Array;

/** The gain of each layer, or of each layer and each of its query heads. */
export type Schedule = "linear" | "constant" | Numbers | readonly Numbers[];

/**
 * The gains that a schedule stands for, row by row: one row for each layer, in it one gain for each head.
 * @throws {TypeError} if it is no schedule
 * @throws {RangeError} if it has not one gain for each layer (and head), or one that is not finite
 */
export function gainsOf(schedule: unknown, shape: AttentionShape): Float64Array {
    const {layers, heads} = shape;
    const gains = new Float64Array(layers * heads);

    if (schedule === "linear") {
        for (let layer = 0; layer < layers; layer++)
            gains.fill(1 - layer / (layers - 1), layer * heads, (layer + 1) * heads);
        return gains;
    }
    if (schedule === "constant")
        return gains.fill(1);
    if (!isList(schedule))
        throw new TypeError(
            `schedule is ${show(schedule)}, but must be "linear", "constant", an array of numbers or an array of arrays of numbers`
        );
    if (schedule.length !== layers)
        throw new RangeError(`schedule has ${schedule.length} entries, but must have ${layers}, one for each layer of the model`);

    const perHead = isList(schedule[0]);
    for (let layer = 0; layer < layers; layer++) {
        const entry = schedule[layer];
        const name = `schedule[${layer}]`;

        if (!perHead)
            gains.fill(checkedGain(entry, name), layer * heads, (layer + 1) * heads);
        else if (!isList(entry))
            throw new TypeError(`${name} is ${show(entry)}, but must be an array of numbers, as schedule[0] is`);
        else if (entry.length !== heads)
            throw new RangeError(`${name} has ${entry.length} entries, but must have ${heads}, one for each query head of the layer`);
        else
            gains.set(Array.from(entry, (gain, head) => checkedGain(gain, `${name}[${head}]`)), layer * heads);
    }
    return gains;
}

function checkedGain(gain: unknown, name: string): number {
    if (typeof gain !== "number")
        throw new TypeError(`${name} is ${show(gain)}, but must be a number`);
    if (!Number.isFinite(Math.fround(gain)))
        throw new RangeError(`${name} is ${gain}, but must be a finite number`);
    return gain;
}

function isList(value: unknown): value is ArrayLike<unknown> {
    return Array.isArray(value) || value instanceof Float32Array || value instanceof Float64Array;
}

/** A copy that its giver can't change. */
export function copyOfSchedule(schedule: Schedule): Schedule {
    if (typeof schedule === "string")
        return schedule;
    return Array.from(schedule as ArrayLike<number | Numbers>, (entry) => (
        typeof entry === "number"
            ? entry
            : Array.from(entry)
    )) as number[] | number[][];
}
