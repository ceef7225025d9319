import {seededRandom} from "#dist/random.js";

/** Tokens without the three control tokens, of a vocabulary of 320 as the oracle's model has it. */
export function randomTokens(count: number, seed: number): number[] {
    const random = seededRandom(seed);
    return Array.from({length: count}, () => 3 + Math.floor(random() * 317));
}
