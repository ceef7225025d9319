import {counted} from "../numberText.js";
import {visibleText} from "../visibleText.js";
import type {LeftOut} from "./evaluate.js";
import type {BadRow} from "./item.js";
import type {RunSettings} from "./results.js";
import type {ArmAccuracy, ControlComparison, GenerationSummary, MetricSummary, PartAccuracy, PerplexitySummary} from "./summary.js";

/** What a run found: report.json, and what the other forms of the report are made of. */
export type EvaluationReport = {
    version: 1,
    settings: RunSettings,

    /** how many items were evaluated, each under every arm */
    items: number,

    /** of tasks with answers */
    metrics: MetricSummary[],

    /** of answers that the model wrote */
    generation?: GenerationSummary[],

    /** of texts */
    perplexity?: PerplexitySummary[],

    /** tokens at the ends of texts that fill no window */
    droppedTokens?: number,

    /** rows of the data that are no items, by file and line */
    badRows: BadRow[],

    /** items that could not be evaluated */
    leftOut: LeftOut[]
};

/** What is meant by the numbers, for those who read them. */
export const notes = {
    interval: "Intervals are 95 %: Wilson's for accuracy, a paired bootstrap's for differences.",
    p: "p is McNemar's exact test against plain, over the items that only one of the two got right; corrected by Holm's method for the " +
        "number of arms.",
    smallest: "The smallest effect is the true difference that a sample like this one would have shown four times in five.",
    fewClusters: "With so few subjects to draw from, the bootstrap's intervals are rather too narrow.",
    perplexity: "Of each window of tokens, the second half is scored. Intervals are 95 %, by bootstrap; of differences, by paired bootstrap.",
    perplexityP: "p is the paired bootstrap's against plain, of the logarithm of perplexity; corrected by Holm's method for the number of arms.",
    divergence: "Divergence is Kullback and Leibler's, of the arm's next token from plain's, in nats, over all tokens that are scored.",
    plainOnly: "There is only the plain arm, so there is nothing to compare."
};

/** With fewer clusters than this a bootstrap of them says too little of how they vary. */
const fewClusters = 20;

/** The findings in a sentence for each arm, in words that say no more than the numbers do. */
export function verdicts({metrics, perplexity}: EvaluationReport): string[] {
    const accuracy = metrics.flatMap(({metric, arms}) => arms.flatMap(({arm, difference}) => {
        if (difference == null)
            return [];
        const {value, onlyArm, onlyPlain, corrected} = difference;
        const what = metrics.length > 1
            ? `${arm} (${metric})`
            : arm;
        if (corrected < 0.05)
            return [`${what}: ${value > 0 ? "better" : "worse"} than plain by ${points(Math.abs(value))}, seldom by chance alone ` +
                `(corrected p ${equationP(corrected)}).`];
        if (onlyArm + onlyPlain === 0)
            return [`${what}: right and wrong on the same items as plain.`];
        return [`${what}: ${signedPoints(value)} points against plain, well within chance (corrected p ${equationP(corrected)}); ` +
            `an effect below about ${points(difference.smallestEffect)} would not have shown.`];
    }));
    const texts = (perplexity ?? []).flatMap(({arm, logRatio}) => {
        if (logRatio == null)
            return [];
        const {value, interval: [low, high], corrected} = logRatio;
        return [`${arm}: perplexity ${percentChange(value)} against plain (${percentChange(low)} to ${percentChange(high)}), ` +
            `${corrected < 0.05 ? "seldom by chance alone" : "well within chance"} (corrected p ${equationP(corrected)}).`];
    });
    return [...accuracy, ...texts];
}

/** Notes that belong to this report. */
export function notesFor({metrics, perplexity}: EvaluationReport): string[] {
    const compared = metrics.some(({arms}) => arms.length > 1);
    const drawn = metrics[0]?.bootstrap;
    const texts = perplexity?.[0]?.bootstrap;
    const textsCompared = perplexity != null && perplexity.length > 1;
    return [
        ...metrics[0]?.guessing == null ? [] : [`Guessing would be right in ${percent(metrics[0].guessing)} of the items.`],
        ...metrics.length > 0 ? [notes.interval] : [],
        ...compared ? [notes.p, notes.smallest] : [],
        ...compared && drawn?.units === "clusters" ? [`The bootstrap draws whole subjects, of which there are ${drawn.clusters}.`] : [],
        ...compared && drawn?.units === "clusters" && drawn.clusters < fewClusters ? [notes.fewClusters] : [],
        ...perplexity != null ? [notes.perplexity] : [],
        ...textsCompared ? [notes.perplexityP, notes.divergence] : [],
        ...texts == null ? [] : [`The bootstrap draws ${texts.units === "texts" ? "whole texts" : "windows"}, of which there are ${texts.count}.`],
        ...texts != null && texts.count < fewClusters
            ? [`With so few ${texts.units} to draw from, the bootstrap's intervals are rather too narrow, and p below 0.05 takes six of them.`]
            : [],
        ...(metrics.length > 0 && !compared) || (perplexity != null && !textsCompared) ? [notes.plainOnly] : []
    ];
}

export function titleOfReport({settings: {task, way, model}}: EvaluationReport): string {
    return `${task}${way == null ? "" : ` by ${way}`}: ${model.file}`;
}

/** All that it was made from, with hashes. */
export function filesOf({settings: {model, data, examples}}: EvaluationReport): RunSettings["data"] {
    return [model, ...data, ...examples];
}

/** What was done, in a line. */
export function subtitleOf({settings: {arms, shots, limit, seed, template, reattend}, items}: EvaluationReport): string {
    return [
        `${items} items, each under ${counted(arms.length, "arm")}.`,
        ...shots === 0 ? [] : [`${counted(shots, "example")} before each question.`],
        ...limit == null ? [] : [`Limit ${limit}.`],
        `Seed ${seed}.`,
        `Chat template: ${template}.`,
        `Made by reattend ${reattend}.`
    ].join(" ");
}

export function renderMarkdown(report: EvaluationReport): string {
    const {settings, metrics, generation, perplexity, badRows, leftOut, droppedTokens} = report;
    return [
        `# ${titleOfReport(report)}`,
        "",
        subtitleOf(report),
        "",
        ...verdicts(report).map((verdict) => `- ${verdict}`),
        "",
        ...metrics.flatMap(renderMetric),
        ...generation == null ? [] : [
            "## What was written",
            "",
            ...markdownTable(generationTable(generation)),
            ""
        ],
        ...perplexity == null ? [] : [
            "## Perplexity",
            "",
            ...markdownTable(perplexityTable(perplexity)),
            "",
            ...perplexity.length > 1 ? ["### Divergence from plain", "", ...markdownTable(divergenceTable(perplexity)), ""] : []
        ],
        ...notesFor(report).map((note) => `${note}  `),
        "",
        "## Arms",
        "",
        ...markdownTable([
            ["arm", "options"],
            ...settings.arms.map(({name, emulation}) => [name, emulation == null ? "the model as it is" : `\`${JSON.stringify(emulation)}\``])
        ]),
        "",
        "## Data",
        "",
        ...markdownTable([["file", "SHA-256"], ...filesOf(report).map(({file, sha256}) => [file, sha256])]),
        "",
        `Rows that are no items: ${badRows.length}.${badRows.length > 0 ? " They were left out:" : ""}`,
        "",
        ...badRows.map(({file, line, problem}) => `- ${file}, line ${line}: ${problem}`),
        ...badRows.length > 0 ? [""] : [],
        `Items that could not be evaluated: ${leftOut.length}.`,
        "",
        ...leftOut.map(({item, reason}) => `- ${item}: ${reason}`),
        ...droppedTokens == null ? [] : [`Tokens at the ends of texts that fill no window: ${droppedTokens}.`]
    ].join("\n").trimEnd().concat("\n");
}

function renderMetric(metric: MetricSummary): string[] {
    return [
        `## ${titleOf(metric)}`,
        "",
        ...markdownTable(armTable(metric.arms)),
        "",
        ...metric.controls.length > 0 ? ["### The pattern against its controls", "", ...markdownTable(controlTable(metric.controls)), ""] : [],
        ...metric.groups.length > 1 ? ["### By group", "", ...markdownTable(partTable(metric.groups)), ""] : [],
        ...metric.subjects.length > 1 ? ["### By subject", "", ...markdownTable(partTable(metric.subjects)), ""] : []
    ];
}

export function titleOf({metric}: MetricSummary): string {
    return {
        accuracy: "Accuracy",
        acc: "Accuracy (acc: the likeliest option)",
        acc_norm: "Accuracy by length (acc_norm: the likeliest option per character)"
    }[metric];
}

type Table = string[][];

export function armTable(arms: readonly ArmAccuracy[]): Table {
    return [
        ["arm", "right", "accuracy", "95 %", "difference", "95 %", "only arm / only plain", "p", "corrected", "smallest effect"],
        ...arms.map(({arm, right, count, accuracy, interval, difference}) => [
            arm, `${right} of ${count}`, percent(accuracy), interval.map(percent).join(" to "),
            ...difference == null
                ? ["", "", "", "", "", ""]
                : [
                    signedPoints(difference.value), difference.interval.map(signedPoints).join(" to "),
                    `${difference.onlyArm} / ${difference.onlyPlain}`, formatP(difference.p), formatP(difference.corrected),
                    points(difference.smallestEffect)
                ]
        ])
    ];
}

/** Whether it is the pattern that makes the difference. */
export function controlTable(controls: readonly ControlComparison[]): Table {
    return [
        ["arm", "against", "difference", "95 %", "only arm / only control", "p", "corrected", "smallest effect"],
        ...controls.map(({arm, control, difference}) => [
            arm, control, signedPoints(difference.value), difference.interval.map(signedPoints).join(" to "),
            `${difference.onlyArm} / ${difference.onlyPlain}`, formatP(difference.p), formatP(difference.corrected),
            points(difference.smallestEffect)
        ])
    ];
}

/** Accuracy of each arm, and how far it is from plain. */
export function partTable(parts: readonly PartAccuracy[]): Table {
    const names = parts[0]?.arms.map(({arm}) => arm) ?? [];
    return [
        ["", "items", ...names],
        ...parts.map(({name, arms}) => [
            name, String(arms[0]?.count ?? 0),
            ...arms.map(({accuracy, difference}) => (
                percent(accuracy) + (difference == null || difference.value === 0 ? "" : ` (${signedPoints(difference.value)})`)
            ))
        ])
    ];
}

export function generationTable(generation: readonly GenerationSummary[]): Table {
    return [
        ["arm", "unreadable", "share", "cut off", "tokens", "per item"],
        ...generation.map(({arm, unreadable, unreadableShare, cutOff, tokens, tokensPerItem}) => [
            arm, String(unreadable), percent(unreadableShare), String(cutOff), String(tokens), tokensPerItem.toFixed(1)
        ])
    ];
}

export function perplexityTable(perplexity: readonly PerplexitySummary[]): Table {
    return [
        ["arm", "tokens", "perplexity", "95 %", "against plain", "95 %", "p", "corrected"],
        ...perplexity.map(({arm, tokens, perplexity, interval, logRatio}) => [
            arm, String(tokens), perplexity.toFixed(3), interval.map((bound) => bound.toFixed(3)).join(" to "),
            ...logRatio == null
                ? ["", "", "", ""]
                : [
                    percentChange(logRatio.value), logRatio.interval.map(percentChange).join(" to "), formatP(logRatio.p),
                    formatP(logRatio.corrected)
                ]
        ])
    ];
}

/** How far each arm is from plain, token by token. */
export function divergenceTable(perplexity: readonly PerplexitySummary[]): Table {
    return [
        ["arm", "mean divergence", "95 %", "median", "90 % below", "99 % below", "largest", "same likeliest token"],
        ...perplexity.flatMap(({arm, divergence, sameTop}) => divergence == null || sameTop == null ? [] : [[
            arm, formatDivergence(divergence.mean), divergence.interval.map(formatDivergence).join(" to "),
            ...[divergence.median, divergence.percentile90, divergence.percentile99, divergence.largest].map(formatDivergence),
            percent(sameTop)
        ]])
    ];
}

function formatDivergence(nats: number): string {
    return nats.toPrecision(3);
}

function markdownTable([head = [], ...rows]: Table): string[] {
    const line = (cells: readonly string[]) => `| ${cells.map(markdownText).join(" | ")} |`;
    return [line(head), `|${head.map((_, index) => index === 0 ? "---|" : "---:|").join("")}`, ...rows.map(line)];
}

/** A text as it is, in a line of Markdown. */
function markdownText(text: string): string {
    return visibleText(text).replace(/[|`*\\]|<(?=[a-z/!?])|&(?=[#\w])/gi, "\\$&");
}

export function percent(share: number): string {
    return `${(100 * share).toFixed(1)} %`;
}

/** A difference of shares: percentage points. */
function points(share: number): string {
    return `${(100 * share).toFixed(1)} points`;
}

function signedPoints(share: number): string {
    const text = (100 * share).toFixed(1);
    return share > 0
        ? `+${text}`
        : text.replace("-0.0", "0.0");
}

function percentChange(logRatio: number): string {
    const change = 100 * (Math.exp(logRatio) - 1);
    return `${change > 0 ? "+" : ""}${change.toFixed(2)} %`;
}

function equationP(p: number): string {
    const text = formatP(p);
    return text.startsWith("<")
        ? text
        : `= ${text}`;
}

export function formatP(p: number): string {
    return p < 0.001
        ? "< 0.001"
        : p.toFixed(p < 0.1 ? 3 : 2);
}
