/** A generator of numbers from 0 to 1, the same ones for each seed (mulberry32). */
export function seededRandom(seed: number): () => number {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let bits = Math.imul(seed ^ (seed >>> 15), seed | 1);
        bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
        return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
    };
}

/** Tokens of the oracle's model, without its control tokens. */
export function randomTokens(count: number, seed: number): number[] {
    const random = seededRandom(seed);
    return Array.from({length: count}, () => 3 + Math.floor(random() * 317));
}
