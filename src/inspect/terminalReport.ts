import Table from "cli-table3";
import {digits, percent, signed} from "../numberText.js";
import {quotedToken, visibleText} from "../visibleText.js";
import {spread} from "./packInspection.js";
import type {ChalkInstance} from "chalk";
import type {CapturedAttention, Inspection} from "./inspection.js";

/** The width of a page that nobody looks at. */
const defaultWidth = 80;
const mostLayers = 32;
const mostTokensOfText = 600;
const outliersListed = 8;

/** An inspection in short, for a terminal. */
export function layOutInspection(inspection: Inspection, {width = defaultWidth, colors}: {width?: number, colors: ChalkInstance}): string {
    const {model, options, tokens} = inspection;
    const parts = [
        [
            `${colors.bold(quotedToken(model.name))}: ${model.layers} layers × ${model.heads} heads, ${tokens.length} tokens, `
            + `strength ${options.strength}, threshold ${options.threshold}`
        ],
        [colors.bold("Over depth"), "means over heads, plain and steered", depthTable(inspection, colors)],
        [colors.bold("Entropy of each head"), headMaps(inspection, width, colors)],
        // without colours it would be the text as it was given
        colors.level > 0 && [colors.bold("The text"), shadedText(inspection, colors)],
        [colors.bold("Outlier tokens"), "the tokens that receive most attention, over all layers and heads", outlierTable(inspection, colors)]
    ];
    return parts.filter((part) => part !== false).map((lines) => lines.join("\n")).join("\n\n");
}

const measures = [
    {name: "entropy", label: "entropy, nats", format: digits},
    {name: "nonSemanticMass", label: "non-semantic", format: percent},
    {name: "firstTokenMass", label: "first token", format: percent},
    {name: "agreement", label: "agreement", format: percent}
] as const;

function depthTable({plain, steered}: Inspection, colors: ChalkInstance): string {
    const table = new Table({
        head: ["layer", ...measures.map(({label}) => label)],
        colAligns: ["right", ...measures.map(() => "right" as const)],
        style: {"head": [], "border": [], "padding-left": 1, "padding-right": 1},
        chars: noFrame
    });
    const indices = plain.layers.map((_, index) => index);
    for (const index of spread(indices, mostLayers)) {
        table.push([String(plain.layers[index]), ...measures.map(({name, format}) => {
            const [before, after] = [plain, steered].map((side) => format(meanOverHeads(side, name, index)));
            return before === after
                ? colors.dim(before!)
                : `${before} → ${colors.cyan(after)}`;
        })]);
    }
    return table.toString();
}

function meanOverHeads(side: CapturedAttention, name: typeof measures[number]["name"], layer: number): number {
    const heads = side.heads.length;
    const values = Array.from(side[name].subarray(layer * heads, (layer + 1) * heads)).filter(Number.isFinite);
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}

const blocks = [..."▁▂▃▄▅▆▇█"];

/** A block for each head, the taller the more evenly it looks; plain and steered side by side where there is room. */
function headMaps({plain, steered}: Inspection, width: number, colors: ChalkInstance): string {
    const most = Math.max(...[...plain.entropy, ...steered.entropy].filter(Number.isFinite), 1e-9);
    const heads = plain.heads.length;
    const indices = spread(plain.layers.map((_, index) => index), mostLayers);
    const strip = (side: CapturedAttention, layer: number) => (
        Array.from(side.entropy.subarray(layer * heads, (layer + 1) * heads), (value) => Number.isFinite(value)
            ? blocks[Math.min(Math.floor(value / most * blocks.length), blocks.length - 1)]!
            : " ").join("")
    );
    const label = (layer: number) => colors.dim(String(plain.layers[layer]).padStart(5));

    if (2 * heads + 10 <= width)
        return [
            `${" ".repeat(6)}${"plain".padEnd(Math.max(heads, 5) + 2)}steered`,
            ...indices.map((layer) => (
                `${label(layer)} ${strip(plain, layer).padEnd(Math.max(heads, 5))}  ${colors.cyan(strip(steered, layer))}`
            ))
        ].join("\n");
    return [["plain", plain], ["steered", steered]].flatMap(([name, side]) => [
        `${" ".repeat(6)}${name as string}`,
        ...indices.map((layer) => `${label(layer)} ${strip(side as CapturedAttention, layer).slice(0, Math.max(width - 6, 8))}`)
    ]).join("\n");
}

/** Each token in the colour of what it receives, steered, against an even share. */
function shadedText({tokens, steered}: Inspection, colors: ChalkInstance): string {
    const shares = sharesOf(steered);
    const shown = tokens.slice(0, mostTokensOfText).map(({text}, i) => {
        const timesEven = shares[i]! * tokens.length;
        const visible = visibleText(text);
        const shaded = timesEven > 8
            ? colors.black.bgYellow(visible)
            : timesEven > 2
                ? colors.yellow(visible)
                : timesEven > 0.5
                    ? visible
                    : colors.dim(visible);
        return text.includes("\n") ? `${shaded}\n` : shaded;
    }).join("");
    const legend = `${colors.black.bgYellow("over 8")} ${colors.yellow("over 2")} ${colors.dim("under 0.5")} times an even share of the attention`;
    return [
        `${shown}${tokens.length > mostTokensOfText ? colors.dim(` … and ${tokens.length - mostTokensOfText} more`) : ""}`.trimEnd(),
        legend
    ].join("\n");
}

/** The share of all queries' attention that each token receives, over all layers and heads. */
function sharesOf({received, layers, heads, tokens: {length}}: CapturedAttention): number[] {
    const places = layers.length * heads.length;
    return Array.from({length}, (_, token) => {
        let sum = 0;
        for (let place = 0; place < places; place++)
            sum += finite(received[place * length + token]!);
        return sum / places * (length - 1 - token) / length;
    });
}

function outlierTable({tokens, plain, steered}: Inspection, colors: ChalkInstance): string {
    const [before, after] = [sharesOf(plain), sharesOf(steered)];
    const foremost = tokens.map((_, token) => token)
        .sort((a, b) => before[b]! - before[a]!)
        .slice(0, outliersListed);
    const table = new Table({
        head: ["token", "class", "at", "plain", "steered", "difference"],
        colAligns: ["left", "left", "right", "right", "right", "right"],
        style: {head: [], border: []},
        chars: noFrame
    });
    for (const token of foremost) {
        const difference = after[token]! - before[token]!;
        table.push([
            quotedToken(tokens[token]!.text), tokens[token]!.class, String(token), percent(before[token]!), percent(after[token]!),
            (difference < 0 ? colors.magenta : colors.yellow)(signed(percent(difference)))
        ]);
    }
    return table.toString();
}

function finite(value: number): number {
    return Number.isFinite(value) ? value : 0;
}

const noFrame = {
    "top": "", "top-mid": "", "top-left": "", "top-right": "", "bottom": "", "bottom-mid": "", "bottom-left": "", "bottom-right": "",
    "left": "", "left-mid": "", "mid": "", "mid-mid": "", "right": "", "right-mid": "", "middle": ""
};
