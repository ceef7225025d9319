import {seededRandom} from "#dist/random.js";

/** Seeded random numbers: the same weights on every machine. */
export class Random {
    #uniform;

    /** @param {number} seed */
    constructor(seed) {
        this.#uniform = seededRandom(seed);
    }

    /** A whole number in [0, end). */
    integer(end) {
        return Math.floor(this.#uniform() * end);
    }

    /** Fills in normally distributed values with mean 0 (Box and Muller's method, which yields two at a time). */
    fillNormal(values, standardDeviation) {
        for (let i = 0; i < values.length; i += 2) {
            const radius = standardDeviation * Math.sqrt(-2 * Math.log(1 - this.#uniform()));
            const angle = 2 * Math.PI * this.#uniform();
            values[i] = radius * Math.cos(angle);
            values[i + 1] = radius * Math.sin(angle); // past the end of an odd length: ignored by typed arrays
        }
    }
}
