/*
 * How weights stand in the page, small: on a logarithmic scale, in 1/256 of a power of two, so to 0.14 %. Both the writer and the page
 * use this file, so it knows neither Node.js nor browsers.
 */

const levelsPerDoubling = 256;
const leastExponent = -24;

/** 0 for weights below 2^-24, none included. */
export function levelOfWeight(weight: number): number {
    const level = Math.round((Math.log2(weight) - leastExponent) * levelsPerDoubling);
    return level > 0
        ? Math.min(level, 0xffff)
        : 0;
}

export function weightOfLevel(level: number): number {
    return level === 0
        ? 0
        : 2 ** (level / levelsPerDoubling + leastExponent);
}

/** Differences as numbers that are small where the difference is, whatever its sign: 0, -1, 1, -2, … become 0, 1, 2, 3, … */
export function zigzag(difference: number): number {
    return difference < 0
        ? -2 * difference - 1
        : 2 * difference;
}

export function unzigzag(code: number): number {
    return code % 2 === 1
        ? -(code + 1) / 2
        : code / 2;
}

/** All lowest bytes first, then all second ones, and so on: compressors like that. */
export function splitBytes(numbers: Uint32Array): Uint8Array {
    const {length} = numbers;
    const bytes = new Uint8Array(length * 4);
    for (let i = 0; i < length; i++) {
        const number = numbers[i]!;
        bytes[i] = number & 0xff;
        bytes[length + i] = (number >>> 8) & 0xff;
        bytes[2 * length + i] = (number >>> 16) & 0xff;
        bytes[3 * length + i] = number >>> 24;
    }
    return bytes;
}

export function joinBytes(bytes: Uint8Array): Uint32Array {
    const length = bytes.length / 4;
    const numbers = new Uint32Array(length);
    for (let i = 0; i < length; i++)
        numbers[i] = (bytes[i]! | bytes[length + i]! << 8 | bytes[2 * length + i]! << 16 | bytes[3 * length + i]! << 24) >>> 0;
    return numbers;
}
