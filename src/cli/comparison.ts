import Table from "cli-table3";
import type {ChalkInstance} from "chalk";
import type {Completion} from "./complete.js";

/** Columns narrower than this are hard to read. */
const leastColumnWidth = 30;

/** Where two texts part, as an index of a character; `undefined` if they are the same. */
export function findDivergence(a: string, b: string): number | undefined {
    if (a === b)
        return undefined;

    let index = 0;
    while (index < a.length && a[index] === b[index])
        index++;
    return index;
}

/** Two completions in two columns, or one below the other where there is no terminal or it is narrow. */
export function layOutComparison(
    plain: Completion, steered: Completion, {width, colors}: {width: number | undefined, colors: ChalkInstance}
): string {
    const divergence = findDivergence(plain.text, steered.text);
    const sides = [
        {title: "plain", ...plain, text: markFrom(divergence, plain.text, colors.yellow)},
        {title: "steered", ...steered, text: markFrom(divergence, steered.text, colors.cyan)}
    ].map((side) => ({
        ...side,
        cost: `${side.tokens} tokens in ${side.seconds.toFixed(2)} s, ${side.tokensPerSecond.toFixed(1)} a second`
    }));
    const legend = divergence == null
        ? "Both wrote the same."
        : `${marker} is where they part.`;

    const columnWidth = Math.floor(((width ?? 0) - 1) / 2) - 1;
    if (columnWidth < leastColumnWidth)
        return [
            ...sides.flatMap(({title, text, cost}) => [`--- ${colors.bold(title)} (${cost})`, text.trim(), ""]),
            legend
        ].join("\n");

    const table = new Table({
        colWidths: [columnWidth, columnWidth],
        wordWrap: true,
        style: {head: [], border: []}
    });
    table.push(
        sides.map(({title}) => colors.bold(title)),
        sides.map(({text}) => text.trim()),
        sides.map(({cost}) => colors.dim(cost))
    );
    return `${table.toString()}\n${legend}`;
}

const marker = "»";

/** Marks where a text parts from the other one, from the beginning of the word on. */
function markFrom(divergence: number | undefined, text: string, color: ChalkInstance): string {
    if (divergence == null)
        return text;

    const start = text.slice(0, divergence).search(/\S*$/);
    const rest = text.slice(start);
    return text.slice(0, start) + color(`${marker}${rest}`);
}
