/** Seeded random numbers (mulberry32): the same on every machine, good enough for weights that mean nothing. */
export class Random {
    #state;

    /** @param {number} seed */
    constructor(seed) {
        this.#state = seed >>> 0;
    }

    /** Uniform in [0, 1). */
    uniform() {
        this.#state = (this.#state + 0x6d2b79f5) >>> 0;
        let bits = this.#state;
        bits = Math.imul(bits ^ (bits >>> 15), bits | 1);
        bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
        return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
    }

    /** A whole number in [0, end). */
    integer(end) {
        return Math.floor(this.uniform() * end);
    }

    /** Fills in normally distributed values with mean 0 (Box and Muller's method, which yields two at a time). */
    fillNormal(values, standardDeviation) {
        for (let i = 0; i < values.length; i += 2) {
            const radius = standardDeviation * Math.sqrt(-2 * Math.log(1 - this.uniform()));
            const angle = 2 * Math.PI * this.uniform();
            values[i] = radius * Math.cos(angle);
            values[i + 1] = radius * Math.sin(angle); // past the end of an odd length: ignored by typed arrays
        }
    }
}
