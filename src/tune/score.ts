/** How an item came out. */
export type ItemScore = {
    /** the log-likelihood of each option, or what else speaks for it on that scale */
    options: number[],

    /** index of the right option */
    answer: number,

    /** whether the likeliest option is the right one */
    right: boolean
};

/** Far above what any model needs. */
const mostSharpness = 10;

/** A gain over guessing per item that only rounding makes. */
export const negligible = 1e-9;

/**
 * Natural logarithm of the right option's probability among all options of each item, where these are taken to be proportional to
 * `exp(sharpness × score)`.
 */
export function logLikelihoodsOf(items: readonly ItemScore[], sharpness: number): number[] {
    return items.map(({options, answer}) => {
        const most = Math.max(...options);
        const logSum = Math.log(options.reduce((sum, score) => sum + Math.exp(sharpness * (score - most)), 0));
        return sharpness * (options[answer]! - most) - logSum;
    });
}

/**
 * The sharpness, an inverse temperature, under which the right options are likeliest on average; 0 where none is better than a guess.
 *
 * A model that is too sure of itself gets likelier answers from anything that makes it less sure, be it ever so wrong. With each
 * setting's own sharpness, only what tells right from wrong counts.
 */
export function fitSharpness(items: readonly ItemScore[]): number {
    const mean = (sharpness: number) => logLikelihoodsOf(items, sharpness).reduce((sum, value) => sum + value, 0);

    // concave in the sharpness, so what is worse on one side of the middle is cut off
    let [low, high] = [0, mostSharpness];
    for (let step = 0; step < 40; step++) {
        const [lower, upper] = [low + (high - low) / 3, high - (high - low) / 3];
        if (mean(lower) < mean(upper))
            low = lower;
        else
            high = upper;
    }
    const fitted = (low + high) / 2;
    return mean(fitted) - mean(0) > negligible * items.length
        ? fitted
        : 0;
}
