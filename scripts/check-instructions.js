#!/usr/bin/env node
// Counts the instructions of flash attention with and without emulation: what no busy machine can blur. See test/instructions.
import Table from "cli-table3";
import {buildFlashAttention, countInstructions} from "./lib/instructions.js";
import {runMain, UserError} from "./lib/main.js";

// With GCC 12, about 1 % above what was counted, for boosting a decoded row half a percent. A compiler may choose to inline otherwise:
// look before they are raised.
const cases = [
    {type: "f16", queries: 1, cells: 2048, keys: 15, record: 1.05, boost: 1.005},
    {type: "q8_0", queries: 1, cells: 2048, keys: 15, record: 1.035, boost: 1.005},
    {type: "f16", queries: 256, cells: 512, keys: 15, record: 1.09, boost: 1.03},
    {type: "f16", queries: 1, cells: 256, keys: 99, record: 1.11, boost: 1.07}
];

await runMain("check-instructions", async () => {
    const program = await buildFlashAttention();
    const table = new Table({
        head: ["cache", "queries", "cells", "keys a row", "emulation", "instructions", "÷ off", "limit"],
        colAligns: ["left", "right", "right", "right", "left", "right", "right", "right"],
        style: {head: [], border: []}
    });
    let passed = 0;
    let failed = 0;
    for (const {type, queries, cells, keys, ...limits} of cases) {
        const count = (mode) => countInstructions(program, mode, {type, queries, cells, keys});
        const off = await count("off");
        table.push([type, queries, cells, keys, "off", off.toLocaleString("en"), "", ""]);
        for (const [mode, limit] of Object.entries(limits)) {
            const instructions = await count(mode);
            const ratio = instructions / off;
            table.push(["", "", "", "", mode, instructions.toLocaleString("en"), ratio.toFixed(4), limit]);
            if (ratio <= limit)
                passed++;
            else
                failed++;
        }
    }
    console.log(table.toString());
    console.log(`${passed} passed, ${failed} failed`);
    if (failed > 0)
        throw new UserError("emulation takes more instructions than it may");
});
