import {axisFx, axisX, dot, plot, ruleX, ruleY} from "@observablehq/plot";
import type {ArmAccuracy, PartAccuracy, PerplexitySummary} from "../../evaluate/summary.js";

/*
 * Points with intervals, one row for each thing that is compared. All numbers are in the tables beside them too.
 */

const rowHeight = 26;
const color = {plain: "var(--plain)", steered: "var(--steered)", quiet: "var(--quiet)", line: "var(--line)"};

/** Room for the longest name, at about seven pixels a character. */
function marginFor(names: readonly string[]): number {
    return Math.min(260, 16 + 7 * Math.max(...names.map((name) => name.length)));
}

type Row = {name: string, value: number, low: number, high: number, color: string, title: string};

function rowChart(rows: readonly Row[], {label, zero}: {label: string, zero: number | undefined}): Element {
    const names = rows.map(({name}) => name);
    return plot({
        width: 760,
        height: 50 + rowHeight * rows.length,
        marginLeft: marginFor(names),
        marginRight: 24,
        marginBottom: 38,
        style: {background: "transparent", color: "var(--text)"},
        ariaLabel: label,
        x: {label, grid: true, nice: true},
        y: {domain: names, label: null, type: "point", padding: 0.6},
        marks: [
            ...zero == null ? [] : [ruleX([zero], {stroke: color.quiet, strokeDasharray: "3,3"})],
            ruleY(rows, {y: "name", x1: "low", x2: "high", stroke: "color", strokeWidth: 2}),
            dot(rows, {y: "name", x: "value", fill: "color", r: 5, title: "title"})
        ],
        color: {type: "identity"}
    });
}

export function accuracyChart(arms: readonly ArmAccuracy[]): Element {
    return rowChart(arms.map(({arm, right, count, accuracy, interval: [low, high], difference}) => ({
        name: arm, value: 100 * accuracy, low: 100 * low, high: 100 * high,
        color: difference == null ? color.plain : color.steered,
        title: `${arm}: ${right} of ${count}, ${(100 * accuracy).toFixed(1)} %`
    })), {label: "accuracy, %", zero: 100 * (arms[0]?.accuracy ?? 0)});
}

export function differenceChart(arms: readonly ArmAccuracy[]): Element {
    return rowChart(arms.flatMap(({arm, difference}) => difference == null ? [] : [{
        name: arm, value: 100 * difference.value, low: 100 * difference.interval[0], high: 100 * difference.interval[1],
        color: difference.corrected < 0.05 ? color.steered : color.quiet,
        title: `${arm}: ${(100 * difference.value).toFixed(1)} points, corrected p = ${difference.corrected.toPrecision(2)}`
    }]), {label: "points; in colour: corrected p below 0.05", zero: 0});
}

export function perplexityChart(perplexity: readonly PerplexitySummary[]): Element {
    const change = (logRatio: number) => 100 * (Math.exp(logRatio) - 1);
    return rowChart(perplexity.flatMap(({arm, logRatio}) => logRatio == null ? [] : [{
        name: arm, value: change(logRatio.value), low: change(logRatio.interval[0]), high: change(logRatio.interval[1]),
        color: logRatio.corrected < 0.05 ? color.steered : color.quiet,
        title: `${arm}: ${change(logRatio.value).toFixed(2)} %, corrected p = ${logRatio.corrected.toPrecision(2)}`
    }]), {label: "change of perplexity, %; in colour: corrected p below 0.05", zero: 0});
}

/** A column for each arm, a row for each part. */
export function partChart(parts: readonly PartAccuracy[]): Element {
    const rows = parts.flatMap(({name, arms}) => arms.flatMap(({arm, difference, count}) => difference == null ? [] : [{
        name, arm, value: 100 * difference.value, low: 100 * difference.interval[0], high: 100 * difference.interval[1],
        title: `${name}, ${arm}: ${(100 * difference.value).toFixed(1)} points of ${count} items`
    }]));
    const names = parts.map(({name}) => name);
    const arms = [...new Set(rows.map(({arm}) => arm))];
    const marginLeft = marginFor(names);
    return plot({
        width: marginLeft + Math.max(420, 150 * arms.length),
        height: 70 + 20 * names.length,
        marginLeft,
        marginTop: 30,
        marginBottom: 38,
        style: {background: "transparent", color: "var(--text)"},
        ariaLabel: "difference to plain of each part under each arm",
        x: {label: "points", grid: true, ticks: 4},
        fx: {domain: arms, label: null, padding: 0.08},
        y: {domain: names, label: null, type: "point", padding: 0.6},
        marks: [
            axisFx({anchor: "top", label: null}),
            axisX({ticks: 4, label: "points"}),
            ruleX([0], {stroke: color.quiet, strokeDasharray: "3,3"}),
            ruleY(rows, {fx: "arm", y: "name", x1: "low", x2: "high", stroke: color.steered, strokeWidth: 1.5}),
            dot(rows, {fx: "arm", y: "name", x: "value", fill: color.steered, r: 3.5, title: "title"})
        ]
    });
}
