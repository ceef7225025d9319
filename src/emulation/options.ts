import {copyOfSchedule, gainsOf} from "./schedule.js";
import {show} from "./show.js";
import type {Schedule} from "./schedule.js";
import type {AttentionShape} from "./shape.js";

/** What {@link emulateAttention} computes. Everything is optional. */
export type AttentionEmulationOptions = {
    /**
     * How much the weights of the chosen keys grow: in a layer with gain `g` they are multiplied by `1 + strength * g`.
     *
     * At least `-1`. `0` leaves the model as it is, below `0` turns the keys down; no weight may get below 0, or 1000 times as large.
     * Can be changed at any time: see {@link AttentionEmulation.strength}.
     *
     * Defaults to `0.2`.
     */
    strength?: number,

    /**
     * A key is chosen where the source layer's attention weight, a probability, is above this. Between `0` and `1`, exclusive.
     *
     * Defaults to `0.01`.
     */
    threshold?: number,

    /**
     * Index of the layer whose attention gives the pattern: only the layers after it are changed.
     * From `0` to the last layer but one.
     *
     * Defaults to `0`.
     */
    sourceLayer?: number,

    /**
     * The gain of each layer.
     * - **`"linear"`** - `1 - l / (L - 1)` in layer `l` of `L`: most in the early layers, nothing in the last. The paper's.
     * - **`"constant"`** - `1` in each layer.
     * - **numbers** - a gain for each of the model's layers.
     * - **arrays of numbers** - for each of the model's layers, a gain for each of its query heads.
     *
     * Gains of the source layer and of the layers before it have no effect, but must be there in an array.
     *
     * Defaults to `"linear"`.
     */
    schedule?: Schedule,

    /**
     * Which keys are chosen.
     * - **`"early-layer"`** - for each head and query, the keys above the threshold in the source layer, without the query's own.
     * - **`"all"`** - every key, the query's own included: a plain global gain, the authors' control.
     * - **`"random"`** - a control: for each head and query, as many keys as `"early-layer"` chooses, but drawn at random from all
     * that the query sees, without its own. Which ones follows from {@link seed}, the head and the positions alone. Costs a hash
     * for each head, query and key, which is about a layer's attention; computed on the CPU.
     * - **`"first-token"`** - the first token of the sequence, unless it is the query's own or out of the layer's window. With
     * {@link normalize} and a gain for each head it is ZeroTuning (Han et al., arXiv 2505.11739): the first token's weight
     * a becomes γa / ((γ - 1)a + 1), with γ = 1 + strength × gain.
     *
     * With each of them the same layers are changed, those after the source layer, so that they can be compared.
     *
     * Defaults to `"early-layer"`.
     */
    pattern?: "early-layer" | "all" | "random" | "first-token",

    /**
     * Seed of the `"random"` pattern; others don't use it. A whole number from `0` to `2 ** 32 - 1`.
     *
     * Defaults to `0`.
     */
    seed?: number,

    /**
     * Whether the changed weights of a query are divided by their sum, so that they sum to 1 again.
     * The authors don't do that.
     *
     * Defaults to `false`.
     */
    normalize?: boolean,

    /**
     * How it is computed. Results are the same, but for rounding.
     * - **`"auto"`** - inside flash attention where the context uses it and the device can do that, otherwise dense.
     * - **`"dense"`** - with all attention weights held in memory: slow, and the ground truth in tests.
     *
     * Defaults to `"auto"`.
     */
    kernel?: "auto" | "dense"
};

/** The options of an emulation, defaults filled in. */
export type ResolvedAttentionEmulationOptions = Readonly<Required<AttentionEmulationOptions>>;

const defaults: ResolvedAttentionEmulationOptions = {
    strength: 0.2,
    threshold: 0.01,
    sourceLayer: 0,
    schedule: "linear",
    pattern: "early-layer",
    seed: 0,
    normalize: false,
    kernel: "auto"
};

/** The patterns that there are. */
export const patterns = ["early-layer", "all", "random", "first-token"] as const satisfies Array<AttentionEmulationOptions["pattern"]>;
const kernels: readonly unknown[] = ["auto", "dense"] satisfies Array<AttentionEmulationOptions["kernel"]>;

/**
 * Fills in the defaults and checks everything.
 * @throws {TypeError} where an option is unknown or has a value of the wrong type
 * @throws {RangeError} where a value is out of range
 */
export function resolveOptions(options: unknown, shape: AttentionShape): {options: ResolvedAttentionEmulationOptions, gains: Float64Array} {
    if (options === null || typeof options !== "object" || Array.isArray(options))
        throw new TypeError(`The options are ${show(options)}, but must be an object`);

    for (const name of Object.keys(options)) {
        if (!Object.hasOwn(defaults, name))
            throw new TypeError(`${name} is not an option; the options are ${Object.keys(defaults).join(", ")}`);
    }

    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    const resolved = {...defaults, ...Object.fromEntries(given)} as ResolvedAttentionEmulationOptions;

    checkThreshold(resolved.threshold);
    checkSourceLayer(resolved.sourceLayer, shape.layers);
    checkOneOf("pattern", resolved.pattern, patterns);
    checkOneOf("kernel", resolved.kernel, kernels);
    checkSeed(resolved.seed);
    if (typeof resolved.normalize !== "boolean")
        throw new TypeError(`normalize is ${show(resolved.normalize)}, but must be true or false`);

    const gains = gainsOf(resolved.schedule, shape);
    checkStrength(resolved.strength, gains.subarray((resolved.sourceLayer + 1) * shape.heads));

    return {
        options: Object.freeze({...resolved, schedule: copyOfSchedule(resolved.schedule)}),
        gains
    };
}

/** How often a weight may be multiplied at most: the dense form multiplies weights and values in F16, which ends at 65,504. */
const maxFactor = 1000;

/**
 * @param gains - of the layers after the source layer
 * @throws {TypeError} if it is not a number
 * @throws {RangeError} if it is out of range, would turn a weight negative, or make one more than {@link maxFactor} times as large
 */
export function checkStrength(strength: unknown, gains: Float64Array): asserts strength is number {
    if (typeof strength !== "number")
        throw new TypeError(`strength is ${show(strength)}, but must be a number`);
    if (!Number.isFinite(Math.fround(strength)) || strength < -1)
        throw new RangeError(`strength is ${strength}, but must be a finite number of at least -1`);

    const least = gains.reduce((a, b) => Math.min(a, b), 0);
    const most = gains.reduce((a, b) => Math.max(a, b), 0);
    if ([least, most].some((gain) => !(factor(strength, gain) >= 0 && factor(strength, gain) <= maxFactor))) {
        // infinite where no gain is above or below 0
        const lower = Math.max(-1, -1 / most, -(maxFactor - 1) / Math.abs(least));
        const upper = Math.min(1 / Math.abs(least), (maxFactor - 1) / most);
        throw new RangeError(
            `strength is ${strength}, but with this schedule must be from ${lower} to ${upper}, ` +
            `so that no attention weight gets below 0 or more than ${maxFactor} times as large`
        );
    }
}

/** What a weight is multiplied by, rounded as the native side does. */
function factor(strength: number, gain: number): number {
    return Math.fround(1 + Math.fround(Math.fround(strength) * Math.fround(gain)));
}

function checkThreshold(threshold: unknown): void {
    if (typeof threshold !== "number")
        throw new TypeError(`threshold is ${show(threshold)}, but must be a number`);

    const rounded = Math.fround(threshold);
    if (!(rounded > 0 && rounded < 1))
        throw new RangeError(`threshold is ${threshold}, but must be between 0 and 1, exclusive`);
}

function checkSourceLayer(sourceLayer: unknown, layers: number): void {
    if (typeof sourceLayer !== "number")
        throw new TypeError(`sourceLayer is ${show(sourceLayer)}, but must be a number`);
    if (layers < 2)
        throw new RangeError(`sourceLayer is ${sourceLayer}, but the model has no layer after its first one that could be changed`);
    if (!Number.isInteger(sourceLayer) || sourceLayer < 0 || sourceLayer > layers - 2)
        throw new RangeError(
            `sourceLayer is ${sourceLayer}, but must be a whole number from 0 to ${layers - 2}: ` +
            `the model has ${layers} layers, and only those after the source layer are changed`
        );
}

function checkSeed(seed: unknown): void {
    if (typeof seed !== "number")
        throw new TypeError(`seed is ${show(seed)}, but must be a number`);
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)
        throw new RangeError(`seed is ${seed}, but must be a whole number from 0 to ${2 ** 32 - 1}`);
}

function checkOneOf(name: string, value: unknown, allowed: readonly unknown[]): void {
    if (!allowed.includes(value))
        throw new TypeError(`${name} is ${show(value)}, but must be ${listOf(allowed)}`);
}

function listOf(values: readonly unknown[]): string {
    const shown = values.map(show);
    return [shown.slice(0, -1).join(", "), ...shown.slice(-1)].join(" or ");
}
