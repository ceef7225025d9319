import os from "node:os";
import process from "node:process";
import Table from "cli-table3";

const heads = ["", "compared with", "it", "plain", "steered", "plain ×", "steered ×", "pairs", "goal"];
const aligns = ["left", "left", "right", "right", "right", "right", "right", "right", "right"];

/** What the numbers depend on; no names of hosts, users or folders. */
export function describeMachine() {
    const cpus = os.cpus();
    return {
        cpu: cpus[0]?.model.trim() ?? "unknown",
        cores: cpus.length,
        memoryGiB: Math.round(os.totalmem() / 2 ** 30),
        platform: `${os.type()} ${process.arch}`,
        node: process.versions.node,
        loadAtStart: Number(os.loadavg()[0].toFixed(1))
    };
}

export function layOut(result) {
    const noLines = {mid: "", "left-mid": "", "mid-mid": "", "right-mid": ""};
    const table = new Table({head: heads, colAligns: aligns, style: {head: [], border: []}, chars: noLines});
    table.push(...result.rows.map(cells));
    return [describe(result), ...(result.rows.length > 0 ? [table.toString()] : []), ...remarks(result)].join("\n");
}

export function toMarkdown(result) {
    const line = (cells) => `| ${cells.join(" | ")} |`;
    return [
        describe(result),
        "",
        line(heads),
        line(aligns.map((align) => align === "right" ? "---:" : "---")),
        ...result.rows.map((row) => line(cells(row))),
        "",
        ...remarks(result).map((remark) => `- ${remark}`),
        ""
    ].join("\n");
}

function describe({machine, model, threads, clock, quick}) {
    const {cpu, cores, memoryGiB, platform, node, loadAtStart} = machine;
    return `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${platform}, Node.js ${node}, load ${loadAtStart} at the start; ` +
        `${model}, ${threads} ${threads === 1 ? "thread" : "threads"}` +
        `${clock === "cpu" ? "; off and prefill and decode through Node.js: seconds of CPU time" : ""}${quick ? "; quick: few rounds, short texts" : ""}`;
}

function cells({what, unit, other, plain, steered, goal}) {
    return [
        `${what}, ${unit}`, other.name, format(other.value), format(plain?.value), format(steered?.value),
        formatRatio(plain), formatRatio(steered), String((plain ?? steered).pairs), goal == null ? "" : `≥ ${goal}`
    ];
}

function formatRatio(cell) {
    if (cell == null)
        return "";
    const {ratio, quartiles, pairs} = cell;
    return pairs === 1
        ? ratio.toFixed(4) // a count
        : `${ratio.toFixed(3)} (${quartiles.map((bound) => bound.toFixed(2)).join(" to ")})`;
}

function format(value) {
    if (value == null)
        return "";
    return value.toFixed(value < 100 ? 1 : 0);
}

function remarks({rows, notes, leftOut}) {
    return [
        ...(rows.length > 0
            ? ["×: how many times as fast as what it is compared with: the median of pairs measured in the same round, and their quartiles"]
            : []),
        ...notes,
        ...rows.filter(({note}) => note != null).map(({what, note}) => `${what}: ${note}`),
        ...Object.entries(leftOut).map(([part, reason]) => `left out of ${part}: ${reason}`)
    ];
}
