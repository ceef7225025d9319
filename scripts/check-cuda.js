#!/usr/bin/env node
// Checks the CUDA kernels without a GPU, see ARCHITECTURE.md, "CUDA".
import {execFileSync, spawn} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {parseArgs} from "node:util";
import Table from "cli-table3";
import {compileTarget} from "./lib/compile-target.js";
import {hash, listFiles, readIfThere} from "./lib/files.js";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain, UserError} from "./lib/main.js";
import {buildFolder, buildName, packageRoot, sourceFolder} from "./lib/paths.js";
import {formatTime} from "./lib/progress.js";
import {prepareSource, readState} from "./lib/source.js";
import {findCommand} from "./lib/tools.js";

const allArchitectures = ["75", "86", "90", "120"];
const cudaFolder = path.join("ggml", "src", "ggml-cuda");
const ownFile = "attn-emulation.cu";
// some instances of each family of flash attention
const someInstances = path.join(packageRoot, "test", "kernels", "cuda", "instances");
const workFolder = path.join(buildFolder, "check-cuda");

const usage = `usage: check-cuda [--all] [--arch N,...] [--only run|compile]

1. Executes the kernels on the CPU, from their own source, against the reference.
2. Compiles them with nvcc and compares registers, spilled bytes and shared memory with llama.cpp's, unpatched. Without nvcc it says
   that this was skipped.

  --all       all instances of flash attention (hours), ours for all pairs of types, and each case as on all sizes of device
  --arch      compute capabilities to compile for; default: ours for ${allArchitectures.join(", ")}, flash attention for 86; --all: for each
  --only      do only the first part or the second`;

await runMain("check-cuda", async () => {
    const {all, architectures, only} = readArguments();
    let failed = 0;
    if (only !== "compile")
        failed += await runOnCpu(all);
    if (only !== "run")
        failed += await compileForDevices(all, architectures);
    if (failed > 0)
        process.exitCode = 1;
});

/** Returns the number of parts that failed. */
async function runOnCpu(all) {
    const folder = await compileTarget({name: buildName(false), target: "run-cuda-on-cpu", definitions: {}});
    console.log("== kernels executed on the CPU");
    const start = Date.now();
    const codes = await inParallel(["our kernels", "vec", "tile", "mma"], async (part) => {
        const {code, output} = await run(path.join(folder, "run-cuda-on-cpu"), [...(all ? ["--all"] : []), part]);
        console.log(`${output.trim()} (${part}${code === 0 ? "" : `, exit code ${code}`})`);
        return code;
    });
    console.log(formatTime(Date.now() - start));
    return codes.filter((code) => code !== 0).length;
}

/** Returns the number of kernels that spill where they did not, or twice as much as before, or are missing. */
async function compileForDevices(all, architectures) {
    const nvcc = findCommand("nvcc");
    if (nvcc == null) {
        console.log("== SKIPPED: there is no nvcc, so nothing was compiled for a device");
        return 0;
    }
    await withBuildLock(() => void prepareSource());
    const before = extractUpstream();
    // relative to the folder of a tree, or absolute
    const files = all
        ? listFiles(path.join(sourceFolder, cudaFolder)).filter((file) => /^template-instances.fattn-.*\.cu$/.test(file))
        : listFiles(someInstances).map((file) => path.join(someInstances, file));
    const jobs = [
        ...(architectures ?? allArchitectures).map((architecture) => ({file: ownFile, architecture, own: true})),
        ...(architectures ?? (all ? allArchitectures : ["86"])).flatMap((architecture) => (
            files.map((file) => ({file, architecture, own: false}))
        ))
    ];

    console.log(`== compiled with ${nvcc}`);
    const version = execFileSync(nvcc, ["--version"], {encoding: "utf8"});
    const start = Date.now();
    const results = await inParallel(jobs, async (job) => ({
        ...job,
        before: job.own ? {} : await kernelsOf(nvcc, version, before, job),
        after: await kernelsOf(nvcc, version, sourceFolder, job, job.own ? typesOfKeysAndValues(all) : [])
    }));
    console.log(tableOf(results).toString());
    console.log(formatTime(Date.now() - start));

    // what spilled before may spill a little more: how registers fall out is chance, and such a kernel waits for its spills either way
    const more = results.flatMap(({file, architecture, before, after}) => (
        Object.entries(after)
            .map(([name, {spilled}]) => ({name, spilled, spilledBefore: before[name]?.spilled ?? 0}))
            .filter(({spilled, spilledBefore}) => spilled > spilledBefore)
            .map(({name, spilled, spilledBefore}) => ({
                text: `${name} of ${path.basename(file)} for sm_${architecture}: ${spilledBefore} bytes spilled before, ${spilled} now`,
                isWorse: spilled > 2 * spilledBefore
            }))
    ));
    for (const {text} of more.filter(({isWorse}) => !isWorse))
        console.log(`        ${text}`);
    const worse = more.filter(({isWorse}) => isWorse).map(({text}) => text);
    const missing = results.flatMap(({file, architecture, before, after}) => (
        Object.keys(before).filter((name) => !(name in after)).map((name) => `${name} of ${path.basename(file)} for sm_${architecture} is not there any more`)
    ));
    for (const line of [...worse, ...missing])
        console.log(`FAILED  ${line}`);
    console.log(`${results.length} files compiled, ${worse.length + missing.length} kernels are worse`);
    return worse.length + missing.length;
}

/** The definitions by which llama.cpp's build says which types flash attention is compiled for: all, or each with itself. */
function typesOfKeysAndValues(all) {
    const types = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"];
    return types.flatMap((key) => types.map((value) => `-DGGML_CUDA_FA_${key}_${value}=${Number(all || key === value)}`));
}

/** llama.cpp's ggml as it is before our patches. */
function extractUpstream() {
    const {base} = readState();
    const folder = path.join(workFolder, base);
    if (!fs.existsSync(folder)) {
        fs.mkdirSync(`${folder}.new`, {recursive: true});
        const archive = execFileSync("git", ["-C", sourceFolder, "archive", base, "ggml"], {maxBuffer: 2 ** 30});
        execFileSync("tar", ["-x", "-C", `${folder}.new`], {input: archive});
        fs.renameSync(`${folder}.new`, folder);
    }
    return folder;
}

/** Of each kernel of a file: registers of a thread, spilled bytes, shared memory; from an earlier run where nothing has changed. */
async function kernelsOf(nvcc, version, tree, {file, architecture}, definitions = []) {
    const folder = path.join(tree, cudaFolder);
    const source = path.resolve(folder, file);
    const includes = [
        path.join(packageRoot, "test", "kernels", "cuda"), path.join(tree, "ggml", "include"), path.join(tree, "ggml", "src"), folder
    ];
    const inputs = [version, architecture, definitions, ...readWithHeaders(source, includes)];
    const known = path.join(workFolder, `${hash(JSON.stringify(inputs))}.json`);
    const text = readIfThere(known);
    if (text != null)
        return JSON.parse(text);

    const {code, output} = await run(nvcc, [
        "-std=c++17", "-use_fast_math", "-extended-lambda", ...definitions, "-Xptxas", "-v", `-arch=sm_${architecture}`, "-cubin", "-o", os.devNull,
        ...includes.flatMap((include) => ["-I", include]), source
    ]);
    if (code !== 0)
        throw new UserError(`nvcc does not compile ${source} for sm_${architecture}:\n${output.trim()}`);
    const kernels = parseKernels(output);
    fs.mkdirSync(workFolder, {recursive: true});
    fs.writeFileSync(known, JSON.stringify(kernels));
    return kernels;
}

/** The text of a source file, and of all headers of ours and of llama.cpp's that it comes to include. */
function readWithHeaders(source, includes) {
    const texts = new Map();
    function read(file) {
        if (texts.has(file))
            return;
        texts.set(file, fs.readFileSync(file, "utf8"));
        for (const [, name] of texts.get(file).matchAll(/^\s*#\s*include\s+"(.+)"/gm)) {
            const header = [path.dirname(file), ...includes].map((folder) => path.join(folder, name)).find(fs.existsSync);
            if (header != null)
                read(header);
        }
    }
    read(source);
    return [...texts.values()];
}

function parseKernels(output) {
    const kernels = {};
    for (const report of output.split("Compiling entry function ").slice(1)) {
        const name = /'(\S+)'/.exec(report)[1];
        const [, stores, loads] = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(report);
        const [, registers] = /Used (\d+) registers/.exec(report);
        const shared = /(\d+) bytes smem/.exec(report)?.[1];
        // without the types of its parameters, of which we add one
        const short = /^_Z(\d+)/.exec(name);
        const start = short[0].length + Number(short[1]);
        const end = name.indexOf("EEv", start);
        kernels[end < 0 ? name.slice(0, start) : name.slice(short[0].length, end + 2)] =
            {registers: Number(registers), spilled: Number(stores) + Number(loads), shared: Number(shared ?? 0)};
    }
    return kernels;
}

function tableOf(results) {
    const table = new Table({
        head: ["file", "sm", "kernels", "most registers", "all registers", "spilled bytes", "shared memory"],
        colAligns: ["left", "right", "right", "right", "right", "right", "right"],
        style: {head: [], border: []}
    });
    for (const {file, architecture, own, before, after} of results) {
        const compare = (of) => own
            ? String(of(Object.values(after)))
            : `${of(Object.values(before))} → ${of(Object.values(after))}`;
        table.push([
            path.basename(file), architecture, Object.keys(after).length,
            compare((kernels) => Math.max(...kernels.map(({registers}) => registers))),
            compare((kernels) => sum(kernels.map(({registers}) => registers))),
            compare((kernels) => sum(kernels.map(({spilled}) => spilled))),
            compare((kernels) => sum(kernels.map(({shared}) => shared)))
        ]);
    }
    return table;
}

function sum(numbers) {
    return numbers.reduce((total, number) => total + number, 0);
}

async function inParallel(items, work) {
    const results = [];
    let next = 0;
    async function worker() {
        while (next < items.length) {
            const index = next++;
            results[index] = await work(items[index]);
        }
    }
    await Promise.all(Array.from({length: os.availableParallelism()}, worker));
    return results;
}

function run(program, args) {
    return new Promise((resolve, reject) => {
        const child = spawn(program, args, {stdio: ["ignore", "pipe", "pipe"]});
        let output = "";
        for (const stream of [child.stdout, child.stderr])
            stream.setEncoding("utf8").on("data", (chunk) => output += chunk);
        child.on("error", reject);
        child.on("close", (code, signal) => resolve({code: code ?? signal, output}));
    });
}

function readArguments() {
    try {
        const {values} = parseArgs({
            options: {
                all: {type: "boolean", default: false},
                arch: {type: "string"},
                only: {type: "string"},
                help: {type: "boolean", short: "h"}
            }
        });
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }
        if (values.only != null && !["run", "compile"].includes(values.only))
            throw new Error(`--only is ${JSON.stringify(values.only)}; allowed are run and compile`);
        const architectures = values.arch?.split(",");
        const odd = architectures?.find((architecture) => !/^\d{2,3}[af]?$/.test(architecture));
        if (odd != null)
            throw new Error(`--arch has ${JSON.stringify(odd)}; a compute capability is written like 86`);
        return {all: values.all, architectures, only: values.only};
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
