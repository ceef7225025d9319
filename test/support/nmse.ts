/** The normalised mean squared error Σ(a-b)² / Σb², llama.cpp's own measure in comparisons of backends. */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
    if (actual.length !== expected.length)
        throw new Error(`${actual.length} values can't be compared with ${expected.length}`);

    let difference = 0;
    let total = 0;
    for (let i = 0; i < expected.length; i++) {
        difference += (actual[i]! - expected[i]!) ** 2;
        total += expected[i]! ** 2;
    }
    return difference / total;
}

/** The greatest NMSE of any position, or NaN where that of any is. */
export function worstNmse(actual: ReadonlyArray<ArrayLike<number>>, expected: ReadonlyArray<ArrayLike<number>>): number {
    if (actual.length !== expected.length)
        throw new Error(`${actual.length} positions can't be compared with ${expected.length}`);

    let worst = 0;
    for (const [i, logits] of actual.entries())
        worst = Math.max(worst, nmse(logits, expected[i]!));
    return worst;
}

/** What an exact implementation stays within; stock llama.cpp is at about 1e-6, a wrong implementation above 1e-3. */
export const allowedNmse = 5e-6;
