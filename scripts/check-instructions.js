#!/usr/bin/env node
// Counts the instructions of flash attention with and without emulation: what no busy machine can blur. See test/instructions.
import {spawnSync} from "node:child_process";
import path from "node:path";
import Table from "cli-table3";
import {withBuildLock} from "./lib/lock.js";
import {runMain, UserError} from "./lib/main.js";
import {compile} from "./lib/native-build.js";
import {prepareSource} from "./lib/source.js";
import {findCommand, requireTools} from "./lib/tools.js";

// With GCC 12, 1 % above what was counted when they were set. A compiler may choose to inline otherwise: look before they are raised.
const cases = [
    {type: "f16", queries: 1, cells: 2048, keys: 15, record: 1.05, boost: 1.018},
    {type: "q8_0", queries: 1, cells: 2048, keys: 15, record: 1.046, boost: 1.014},
    {type: "f16", queries: 256, cells: 512, keys: 15, record: 1.17, boost: 1.025},
    {type: "f16", queries: 1, cells: 256, keys: 99, record: 1.07, boost: 1.077}
];

await runMain("check-instructions", async () => {
    if (findCommand("valgrind") == null)
        throw new UserError("valgrind is not there; install it with: apt install valgrind");
    requireTools();
    const folder = await withBuildLock(() => {
        prepareSource();
        return compile({
            name: "instructions",
            gpu: false,
            config: "Release",
            target: "flash-attention",
            // AVX2 wherever it runs, as valgrind does not know AVX-512; and one thread without OpenMP's
            definitions: {REATTEND_ADDON: "OFF", GGML_NATIVE: "OFF", GGML_OPENMP: "OFF"}
        });
    });

    const program = path.join(folder, "flash-attention");
    const table = new Table({
        head: ["cache", "queries", "cells", "keys a row", "emulation", "instructions", "÷ off", "limit"],
        colAligns: ["left", "right", "right", "right", "left", "right", "right", "right"],
        style: {head: [], border: []}
    });
    let passed = 0;
    let failed = 0;
    for (const {type, queries, cells, keys, ...limits} of cases) {
        const count = (mode) => countInstructions(program, [mode, type, queries, cells, keys]);
        const off = count("off");
        table.push([type, queries, cells, keys, "off", off.toLocaleString("en"), "", ""]);
        for (const [mode, limit] of Object.entries(limits)) {
            const instructions = count(mode);
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

/** Of one pass: those of three passes less those of one, so that start and end don't count. */
function countInstructions(program, args) {
    const [one, three] = [1, 3].map((times) => {
        const {status, stderr} = spawnSync(
            "valgrind", ["--tool=callgrind", "--callgrind-out-file=/dev/null", program, ...args.map(String), String(times)], {encoding: "utf8"}
        );
        const [, collected] = /Collected : (\d+)/.exec(stderr) ?? [];
        if (status !== 0 || collected == null)
            throw new UserError(`valgrind failed: ${stderr.trim().split("\n").slice(-5).join("\n")}`);
        return Number(collected);
    });
    return Math.round((three - one) / 2);
}
