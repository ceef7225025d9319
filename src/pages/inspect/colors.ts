import {interpolateLab, lab, piecewise} from "d3";
import {element} from "../shared/dom.js";
import {roundPercent} from "../../numberText.js";
import {currentTheme} from "../shared/theme.js";
import type {Theme} from "../shared/theme.js";

export type ColorScale = (value: number) => string;

/*
 * Colours of values from 0 to 1, and from -1 to 1. 0 has the colour of the page, so that what is dark stands out in light colours and
 * what is bright in dark ones.
 */

const scale = (colors: string[]): ColorScale => piecewise(interpolateLab, colors) as ColorScale;

const sequential: Record<Theme, ColorScale> = {
    light: scale(["#ffffff", "#d6e8f8", "#86bbe8", "#2f7fc9", "#0b4a94", "#062a5c"]),
    dark: scale(["#14161a", "#13314f", "#1c5b92", "#3b93d6", "#8cc8fb", "#e3f3ff"])
};

const diverging: Record<Theme, ColorScale> = {
    light: scale(["#3f1d7a", "#7d5cc0", "#c3b4e6", "#ffffff", "#fdc890", "#d9731f", "#7a3400"]),
    dark: scale(["#d9ccff", "#9a7ff0", "#4f3b92", "#14161a", "#8a4a12", "#ee9440", "#ffe0bd"])
};

export function sequentialColor(): ColorScale {
    const interpolate = sequential[currentTheme()];
    return (value) => interpolate(clamp(value, 0, 1));
}

export function divergingColor(): ColorScale {
    const interpolate = diverging[currentTheme()];
    return (value) => interpolate((clamp(value, -1, 1) + 1) / 2);
}

/** Black or white, whichever can be read on a colour. */
export function textColorOn(background: string): string {
    return lab(background).l > 50
        ? "#101216"
        : "#ffffff";
}

/** The least weight that the page has. */
export const leastWeightShown = 1e-4;

/**
 * Weights are looked at on a logarithmic scale. Gives where a weight, or a difference of weights, is on it: 0 for up to the least one that
 * is shown, 1 for all of a row.
 */
export function logPosition(weight: number, least: number): number {
    const size = Math.abs(weight);
    if (!(size > least))
        return 0;
    return Math.sign(weight) * Math.min(1 - Math.log(size) / Math.log(least), 1);
}

/** The scale under a chart: a strip of its colours, and what some of them stand for. */
export function colorLegend(color: ColorScale, range: [number, number], labels: readonly string[]): HTMLElement {
    const [start, end] = range;
    const stops = Array.from({length: 13}, (_, i) => color(start + (end - start) * i / 12));
    const strip = element("div", {class: "legend-strip"});
    strip.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    return element("div", {class: "legend", "aria-hidden": "true"}, strip,
        element("div", {class: "legend-labels"}, ...labels.map((label) => element("span", {}, label))));
}

/** The legend of weights on their logarithmic scale. */
export function weightLegend(isDifference: boolean, least: number): HTMLElement {
    const middle = roundPercent(Math.sqrt(least));
    return isDifference
        ? colorLegend(divergingColor(), [-1, 1], ["−100 %", `−${middle}`, "0", `+${middle}`, "+100 %"])
        : colorLegend(sequentialColor(), [0, 1], [`≤ ${roundPercent(least)}`, middle, "100 %"]);
}

function clamp(value: number, least: number, most: number): number {
    return Math.min(Math.max(value, least), most);
}
