import {resolveOptions} from "../emulation/options.js";
import {gainsOf} from "../emulation/schedule.js";
import {seededRandom} from "../random.js";
import type {AttentionShape} from "../emulation/shape.js";
import type {AttentionProfile} from "../profile/profile.js";

/** A way of emulation that is tried. */
export type Setting = AttentionProfile["options"];

export type SearchSpace = {
    shape: AttentionShape,
    patterns: ReadonlyArray<Setting["pattern"]>,
    sourceLayer: number
};

/** Shares of the changed layers, from the first of them on, that have a gain. */
const layerShares = {early: [0, 0.5], middle: [0.25, 0.75], late: [0.5, 1]} as const;

const leastStrength = 0.05;
const mostStrength = 2;
const thresholds = [0.003, 0.1] as const;

/**
 * Settings to begin a search with: for each pattern the authors' values, then random ones. The same seed gives the same ones.
 */
export function firstCandidates(space: SearchSpace, count: number, seed: number): Setting[] {
    const random = seededRandom(seed);
    const candidates = new Map<string, Setting>();
    const add = (setting: Setting) => {
        if (isAllowed(setting, space.shape))
            candidates.set(keyOf(setting), setting);
    };

    for (const pattern of space.patterns)
        add(makeSetting(space, pattern, {strength: 0.2, threshold: 0.01, schedule: "linear", normalize: pattern === "first-token"}));
    // duplicates and settings that no weight allows are drawn anew; where a space is small, there are fewer
    for (let draw = 0; candidates.size < count && draw < 20 * count; draw++) {
        const pattern = space.patterns[Math.floor(random() * space.patterns.length)]!;
        const up = random() < 0.65;
        const size = leastStrength * (mostStrength / leastStrength) ** random();
        const threshold = thresholds[0] * (thresholds[1] / thresholds[0]) ** random();
        const schedules = ["linear", "constant", ...Object.keys(layerShares) as Array<keyof typeof layerShares>] as const;
        const schedule = schedules[Math.floor(random() * schedules.length)]!;
        const normalized = random() < 0.3;
        add(makeSetting(space, pattern, {
            strength: roundTo2(up ? size : -Math.min(size, 0.95)),
            threshold: pattern === "all" || pattern === "first-token" ? 0.01 : roundTo2(threshold),
            schedule: schedule in layerShares
                ? partOfLayers(space, layerShares[schedule as keyof typeof layerShares])
                : schedule as "linear" | "constant",
            // equally scaled rows that sum to 1 again are the plain ones; the first token's lever is made for it
            normalize: pattern !== "all" && (pattern === "first-token" || normalized)
        }));
    }
    return [...candidates.values()].slice(0, count);
}

/** The same with other strengths. */
export function otherStrengths(setting: Setting, {shape}: SearchSpace): Setting[] {
    return [0.5, 0.75, 1.5, 2]
        .map((factor) => ({...setting, strength: roundTo2(factor * setting.strength)}))
        .filter((other) => isAllowed(other, shape));
}

/** For each quarter of the changed layers, the same without it, and with it doubled. */
export function otherLayers(setting: Setting, {shape, sourceLayer}: SearchSpace): Setting[] {
    const gains = gainsPerHead(setting, shape);
    const first = sourceLayer + 1;
    const blocks = Math.min(4, shape.layers - first);
    return Array.from({length: blocks}, (_, block) => [0, 2].map((factor) => {
        const from = first + Math.floor(block * (shape.layers - first) / blocks);
        const to = first + Math.floor((block + 1) * (shape.layers - first) / blocks);
        return {
            ...setting,
            schedule: gains.map((row, layer) => row.map((gain) => layer >= from && layer < to ? factor * gain : gain))
        };
    })).flat().filter((other) => isAllowed(other, shape)).map((other) => simplified(other, shape));
}

/** The same without some heads, in all layers. */
export function withoutHeads(setting: Setting, shape: AttentionShape, heads: readonly number[]): Setting {
    const schedule = gainsPerHead(setting, shape).map((row) => row.map((gain, head) => heads.includes(head) ? 0 : gain));
    return simplified({...setting, schedule}, shape);
}

/** Two settings with one key do the same. */
export function keyOf(setting: Setting): string {
    return JSON.stringify([
        setting.pattern, setting.strength, setting.threshold, setting.sourceLayer, setting.schedule, setting.normalize, setting.seed ?? 0
    ]);
}

function makeSetting(
    {sourceLayer}: SearchSpace, pattern: Setting["pattern"],
    rest: Pick<Setting, "strength" | "threshold" | "schedule" | "normalize">
): Setting {
    return {pattern, sourceLayer, seed: 0, ...rest};
}

function partOfLayers({shape: {layers}, sourceLayer}: SearchSpace, [from, to]: readonly [number, number]): number[] {
    const first = sourceLayer + 1;
    const changed = layers - first;
    return Array.from({length: layers}, (_, layer) => {
        const place = (layer - first + 0.5) / changed;
        return layer >= first && place >= from && place < to ? 1 : 0;
    });
}

function gainsPerHead({schedule}: Setting, shape: AttentionShape): number[][] {
    const gains = gainsOf(schedule, shape);
    return Array.from({length: shape.layers}, (_, layer) => (
        Array.from(gains.subarray(layer * shape.heads, (layer + 1) * shape.heads))
    ));
}

/** Gains that are the same for all heads of a layer, as one for each layer. */
function simplified(setting: Setting, {layers}: AttentionShape): Setting {
    const rows = setting.schedule as number[][];
    const alike = rows.length === layers && rows.every((row) => row.every((gain) => gain === row[0]));
    return alike
        ? {...setting, schedule: rows.map(([gain = 0]) => gain)}
        : setting;
}

function isAllowed(setting: Setting, shape: AttentionShape): boolean {
    try {
        resolveOptions(setting, shape);
        return true;
    } catch (error) {
        if (error instanceof RangeError && error.message.startsWith("strength "))
            return false;
        throw error;
    }
}

function roundTo2(value: number): number {
    return Number(value.toPrecision(2));
}
