#!/usr/bin/env node
// Checks emulation on a small random model of every architecture that llama.cpp has, see test/architectures.
import {spawn, spawnSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {parseArgs} from "node:util";
import ora from "ora";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain, UserError} from "./lib/main.js";
import {compile, outputFolder} from "./lib/native-build.js";
import {buildName, gpuTypes, packageRoot} from "./lib/paths.js";
import {formatTime} from "./lib/progress.js";
import {prepareSource} from "./lib/source.js";
import {requireTools} from "./lib/tools.js";

const document = path.join(packageRoot, "test", "architectures", "README.md");
const minutesPerModel = 5;
const minutesPerModelOnGpu = 60; // a software driver takes 5 to 11 for those of check-gpu
// of the table, after the name: what must not change unnoticed; the columns that follow are measured
const comparedColumns = ["layers", "emulated", "kernel", "left alone", "captured"];

const usage = `usage: check-architectures [options] [NAME...]

Checks emulation on a small random model of every architecture that llama.cpp has, or of those named. What is emulated, by which
kernel, and what is captured must be as the table in test/architectures/README.md says.

  --update                  write the table instead; not where some are named
  --gpu cuda|vulkan|metal   compute on it, without a look at the table
  --no-build                take the program that is compiled already`;

await runMain("check-architectures", async () => {
    const {names, gpu, update, "no-build": noBuild} = readArguments();
    if (!noBuild)
        await build(gpu);
    const program = path.join(outputFolder(buildName(gpu)), `check-architecture${process.platform === "win32" ? ".exe" : ""}`);
    if (!fs.existsSync(program))
        throw new UserError(`there is no ${path.relative(process.cwd(), program)}; without --no-build it is compiled`);

    const start = Date.now();
    const variants = listVariants(program, names);
    const results = await checkAll(program, variants, gpu);
    if (update)
        writeTable(results);
    else if (gpu === false)
        results.push(...compareWithTable(results, names.length === 0));
    const failed = results.filter(({ok}) => !ok);

    for (const result of failed)
        console.log(describeFailure(result));
    console.log(`${results.length - failed.length} passed, ${failed.length} failed (${formatTime(Date.now() - start)})`);
    if (failed.length > 0)
        process.exitCode = 1;
});

async function build(gpu) {
    requireTools(gpu);
    await withBuildLock(() => {
        prepareSource();
        return compile({name: buildName(gpu), gpu, config: "Release", definitions: {}, target: "check-architecture"});
    });
}

function listVariants(program, names) {
    const {status, stdout, stderr} = spawnSync(program, ["--list"], {encoding: "utf8"});
    if (status !== 0)
        throw new UserError(`the architectures could not be listed: ${stderr.trim()}`);

    const all = stdout.trim().split("\n").map((line) => line.split(" "));
    const unknown = names.filter((name) => !all.some(([architecture]) => architecture === name));
    if (unknown.length > 0)
        throw new UserError(`there is no architecture ${unknown.join(", ")}; allowed are ${[...new Set(all.map(([name]) => name))].join(", ")}`);
    return all.filter(([architecture]) => names.length === 0 || names.includes(architecture));
}

/** One process for each model, so that a crash is one model's; one model for each core, as most of their work is not parallel. */
async function checkAll(program, variants, gpu) {
    const results = [];
    const progress = ora({text: "", isSilent: !process.stderr.isTTY}).start();
    let next = 0;
    async function work() {
        while (next < variants.length) {
            const variant = variants[next++];
            progress.text = `${results.length} of ${variants.length}: ${variant.join(" ")}`;
            results.push(await checkOne(program, variant, gpu));
        }
    }
    await Promise.all(Array.from({length: gpu === false ? os.availableParallelism() : 1}, work));
    progress.stop();
    return results.sort((a, b) => a.architecture.localeCompare(b.architecture) || a.kind.localeCompare(b.kind));
}

function checkOne(program, [architecture, kind], gpu) {
    const minutes = gpu === false ? minutesPerModel : minutesPerModelOnGpu;
    return new Promise((resolve) => {
        const child = spawn(program, [architecture, kind, ...(gpu === false ? [] : ["gpu"])], {stdio: ["ignore", "pipe", "pipe"], timeout: minutes * 60_000});
        let stdout = "";
        let stderr = "";
        child.stdout.setEncoding("utf8").on("data", (chunk) => stdout += chunk);
        child.stderr.setEncoding("utf8").on("data", (chunk) => stderr += chunk);
        child.on("error", (error) => resolve({architecture, kind, ok: false, error: error.message}));
        child.on("close", (code, signal) => {
            try {
                resolve(JSON.parse(stdout));
            } catch {
                const lines = stderr.trim().split("\n");
                const lastWords = lines.find((line) => /ASSERT|error/i.test(line)) ?? lines.at(-1);
                const end = signal === "SIGTERM"
                    ? `was stopped after ${minutes} minutes`
                    : `ended with ${signal ?? `exit code ${code}`}`;
                resolve({architecture, kind, ok: false, error: `the check ${end}. ${lastWords}`.trim()});
            }
        });
    });
}

function describeFailure({architecture, kind, error, comparisons = []}) {
    const lines = comparisons
        .filter(({ok}) => !ok)
        .map(({name, error, limit}) => `    ${name}: ${format(error)}, limit ${format(limit)}`);
    return [`FAIL ${architecture} ${kind}${error == null ? "" : `: ${error}`}`, ...lines].join("\n");
}

/** What differs from the table, as results that fail; all: an architecture that is in the table only is a difference, too. */
function compareWithTable(results, all) {
    const known = readTable();
    const differences = [];
    const fail = (row, error) => differences.push({architecture: row, kind: "against the table", ok: false, error});

    const reasons = listReasons(results);
    const finished = results.filter(({error}) => error == null);
    for (const result of finished) {
        const row = cells(result, reasons);
        const expected = known.get(row[0]);
        if (expected == null) {
            fail(row[0], "it is not there; --update writes the table");
            continue;
        }
        const actual = withReasons(row, reasons);
        for (const [index, column] of comparedColumns.entries()) {
            if (actual[index] !== expected[index])
                fail(row[0], `${column}: ${actual[index] || "none"}, in the table ${expected[index] || "none"}`);
        }
    }
    const names = new Set(results.map((result) => cells(result, reasons)[0]));
    for (const name of all ? known.keys() : []) {
        if (!names.has(name))
            fail(name, "llama.cpp no longer has it; --update writes the table");
    }
    return differences;
}

/** Of each row of the committed table, by its name, the compared columns. */
function readTable() {
    const [, table] = splitDocument();
    const reasons = [...table.matchAll(/^\d+\. (.*)$/gm)].map(([, reason]) => reason);
    const rows = [...table.matchAll(/^\| (.*) \|$/gm)].map(([, row]) => row.split(" | ")).slice(1);
    return new Map(rows.map((row) => [row[0], withReasons(row, reasons)]));
}

/** The compared columns of a row, with the reasons in place of their numbers, which are others in other runs, and so is their order. */
function withReasons(row, reasons) {
    return row.slice(1, 1 + comparedColumns.length)
        .map((cell) => String(cell).trim().split(/(?<=\)), /)
            .map((part) => part.replace(/\((\d+)\)/, (_, number) => `(${reasons[number - 1]})`))
            .sort()
            .join(", "));
}

function listReasons(results) {
    return [...new Set(results.flatMap(({layers = []}) => layers.map(({reason}) => reason)).filter((reason) => reason != null))];
}

/** What is before the table, the table, and what is after it. */
function splitDocument() {
    const parts = fs.readFileSync(document, "utf8").split(/(?<=<!-- table -->\n)([^]*)(?=<!-- end of table -->)/);
    if (parts.length !== 3)
        throw new UserError(`${path.relative(process.cwd(), document)} has no place for the table any more`);
    return parts;
}

function writeTable(results) {
    const [before, , after] = splitDocument();
    const reasons = listReasons(results);
    const rows = results.map((result) => `| ${cells(result, reasons).join(" | ")} |\n`);
    const notes = reasons.map((reason, index) => `${index + 1}. ${reason}\n`);
    fs.writeFileSync(document, [
        before,
        "| architecture | layers | emulated | kernel | left alone | captured | keys a row | effect | worst error ÷ limit | |\n",
        "|---|---|---|---|---|---|---|---|---|---|\n",
        ...rows,
        "\nReasons why layers are left alone:\n\n",
        ...notes,
        after
    ].join(""));
}

function cells({architecture, kind, ok, error, layers = [], keys_per_row: keys, effect, comparisons = [], captured = [], lens}, reasons) {
    const name = `${architecture}${kind === "moe" ? ", experts" : ""}`;
    if (error != null)
        return [name, "", "", "", "", "", "", "", error, "fails"];

    const emulated = layers.flatMap((layer, index) => layer.emulated ? [index] : []);
    const leftAlone = reasons
        .map((reason, index) => [index + 1, layers.flatMap((layer, index) => layer.reason === reason ? [index] : [])])
        .filter(([, list]) => list.length > 0)
        .map(([number, list]) => `${ranges(list)} (${number})`);
    const worst = comparisons
        .filter(({limit}) => limit > 0)
        .reduce((worst, comparison) => comparison.error / comparison.limit > worst.error / worst.limit ? comparison : worst);
    const kernels = new Set(layers.filter((layer) => layer.emulated).map(({fused}) => fused ? "fused" : "dense"));
    return [
        name, layers.length, ranges(emulated), [...kernels].join(", "), leftAlone.join(", "),
        `${ranges(captured)}${lens ? ", lens" : ""}`,
        emulated.length > 0 ? keys.toFixed(1) : "",
        emulated.length > 0 ? format(effect) : "",
        `${(worst.error / worst.limit).toFixed(2)} (${format(worst.error)}, ${worst.name})`,
        ok ? "passes" : "fails"
    ];
}

/** `[0, 1, 2, 5]` as "0–2, 5" */
function ranges(numbers) {
    const runs = [];
    for (const number of numbers) {
        const last = runs.at(-1);
        if (last != null && last[1] === number - 1)
            last[1] = number;
        else
            runs.push([number, number]);
    }
    return runs.map(([first, last]) => first === last ? `${first}` : `${first}–${last}`).join(", ");
}

function format(number) {
    return number === 0
        ? "0"
        : number?.toExponential(1) ?? "infinite"; // JSON has no infinity
}

function readArguments() {
    try {
        const {values, positionals} = parseArgs({allowPositionals: true, options: {
            gpu: {type: "string"},
            update: {type: "boolean", default: false},
            "no-build": {type: "boolean", default: false},
            help: {type: "boolean", short: "h"}
        }});
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }
        if (values.gpu != null && !gpuTypes.includes(values.gpu))
            throw new Error(`--gpu is ${JSON.stringify(values.gpu)}; allowed are ${gpuTypes.join(", ")}`);
        if (values.update && (positionals.length > 0 || values.gpu != null))
            throw new Error("--update writes the whole table, as the CPU has it: it goes with neither names nor --gpu");
        return {...values, names: positionals, gpu: values.gpu ?? false};
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
