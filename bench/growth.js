#!/usr/bin/env node
/**
 * Measures how the cost of emulation grows with the context and with the keys per row, and draws it. One flash attention of a token
 * that is decoded, in instructions (see test/instructions), as clocks tell little about a difference this small.
 */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import Table from "cli-table3";
import {Command} from "commander";
import {startProgress} from "#dist/cli/progress.js";
import {buildFlashAttention, countInstructions} from "../scripts/lib/instructions.js";
import {runMain} from "../scripts/lib/main.js";
import {drawGrowth} from "./growth/figure.js";

const contexts = [256, 1024, 4096, 16_384, 32_768];
const keysPerRow = [0, 15, 50, 99];
const usualKeys = 15;
const usualContext = 4096;

/** As in test/instructions: each of them is a row. */
const heads = 15;

const flags = new Command("bench:growth")
    .description("Measure what emulation adds to one flash attention at several contexts and numbers of keys per row.")
    .option("--figure <file>", "draw it there, as SVG")
    .option("--json", "print one JSON object")
    .exitOverride(({exitCode}) => process.exit(exitCode === 0 ? 0 : 2))
    .parse()
    .opts();

await runMain("bench:growth", async () => {
    const progress = startProgress("building what is counted");
    try {
        const program = await buildFlashAttention();
        const count = async (mode, cells, keys) => {
            progress.text = `${cells.toLocaleString("en")} tokens, ${keys} keys per row, ${mode}`;
            return await countInstructions(program, mode, {type: "f16", queries: 1, cells, keys}) / heads;
        };

        const byContext = [];
        for (const cells of contexts) {
            byContext.push({
                cells,
                keys: usualKeys,
                off: await count("off", cells, usualKeys),
                record: await count("record", cells, usualKeys),
                boost: await count("boost", cells, usualKeys)
            });
        }
        const byKeys = [];
        const {off, boost} = byContext.find(({cells}) => cells === usualContext);
        for (const keys of keysPerRow)
            byKeys.push({cells: usualContext, keys, off, boost: keys === usualKeys ? boost : await count("boost", usualContext, keys)});

        const growth = {byContext, byKeys};
        if (flags.figure != null) {
            fs.mkdirSync(path.dirname(flags.figure), {recursive: true});
            fs.writeFileSync(flags.figure, drawGrowth(growth));
        }
        progress.stop();
        console.log(flags.json
            ? JSON.stringify(growth, undefined, 4)
            : layOut(growth));
    } finally {
        progress.stop();
    }
});

function layOut({byContext, byKeys}) {
    const table = new Table({
        head: ["tokens", "keys", "attention, off", "boost adds", "÷ off", "record adds", "÷ off"],
        colAligns: Array(7).fill("right"),
        style: {head: [], border: []}
    });
    const format = (instructions) => Math.round(instructions).toLocaleString("en");
    for (const {cells, keys, off, boost, record} of [...byContext, ...byKeys]) {
        const added = (instructions) => instructions == null ? ["", ""] : [format(instructions - off), (instructions / off).toFixed(4)];
        table.push([cells.toLocaleString("en"), keys, format(off), ...added(boost), ...added(record)]);
    }
    return [
        "Instructions per row: of one head, for one token that is decoded, with an F16 cache.",
        "Later layers boost listed keys; the source layer, one of all, records which ones to list.",
        table.toString()
    ].join("\n");
}
