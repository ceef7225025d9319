#!/usr/bin/env node
// Runs the CPU's kernels against the reference in 64 bits, and their exponentials against the C library's, as compiled for this x86
// processor, for any with AVX2 and for any without AVX: each has loops of its own.
import {spawnSync} from "node:child_process";
import path from "node:path";
import process from "node:process";
import {compileTarget} from "./lib/compile-target.js";
import {runMain, UserError} from "./lib/main.js";
import {buildName} from "./lib/paths.js";

const portable = {GGML_NATIVE: "OFF", REATTEND_ADDON: "OFF"};
const withoutAvx = Object.fromEntries(["AVX", "AVX2", "FMA", "F16C", "BMI2"].map((extension) => [`GGML_${extension}`, "OFF"]));

const builds = [
    {title: "this processor", name: buildName(false), definitions: {}},
    {title: "AVX2", name: "x86-avx2", definitions: portable},
    {title: "no AVX", name: "x86-sse", definitions: {...portable, ...withoutAvx}}
];

await runMain("check-x86", async () => {
    if (process.arch !== "x64") {
        console.log(`skipped: these kernels are for x64, and this processor is ${process.arch}`);
        return;
    }
    const failed = [];
    for (const {title, name, definitions} of builds) {
        const folder = await compileTarget({name, target: "check-x86", definitions});
        console.log(`== ${title}`);
        for (const [program, ...args] of [["run-kernels", "CPU", ...process.argv.slice(2)], ["compare-exp"]]) {
            const {status} = spawnSync(path.join(folder, program), args, {stdio: "inherit"});
            if (status !== 0)
                failed.push(`${title} (${program})`);
        }
    }
    if (failed.length > 0)
        throw new UserError(`the kernels failed, compiled for: ${failed.join(", ")}`);
});
