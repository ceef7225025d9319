#!/usr/bin/env node
// Checks reattend on a GPU: its kernels one by one, the authors' logits, fused against dense, some architectures, and what it costs.
import {spawnSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {parseArgs} from "node:util";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain, UserError} from "./lib/main.js";
import {compile, install, llamaCppRelease, outputFolder} from "./lib/native-build.js";
import {buildName, gpuTypes, packageRoot} from "./lib/paths.js";
import {prepareSource} from "./lib/source.js";
import {findCommand, requireTools} from "./lib/tools.js";

const oracleModel = path.join(packageRoot, "test", "oracle", "llama-8l.gguf");
const architectures = ["llama", "gemma3", "gpt-oss", "deepseek2", "bloom"];

const parts = {
    kernels: "kernels one by one, against 64-bit arithmetic",
    oracle: "logits of the authors' own code",
    dense: "fused against dense",
    fallback: "without the kernels: dense, on the device",
    architectures: `random models: ${architectures.join(", ")}`,
    bench: "cost"
};

const usage = `usage: check-gpu --backend cuda|vulkan|metal [options]

Builds reattend for a backend, checks it on the device that llama.cpp takes first, and prints a table in Markdown for a report.

  --backend cuda|vulkan|metal
  --only LIST          parts: ${Object.keys(parts).join(",")}
  -m, --model FILE     GGUF file for bench; default: the embedded model, which is too small to say much.
                       \`npm run bench:model\` makes one of 360M parameters
  --markdown FILE      write the table there, too
  --no-build           check what is built already, here or on another machine: nothing is compiled
  -h, --help

A software driver of Vulkan is used only where GGML_VK_VISIBLE_DEVICES=0 in the environment says so.`;

await runMain("check-gpu", async () => {
    const {backend, only, model, markdown, "no-build": noBuild} = readArguments();
    const folder = noBuild
        ? findBuild(backend)
        : await withBuildLock(() => build(backend, only));
    const device = findDevice(path.join(folder, "run-kernels"));

    const checks = {
        kernels: () => runKernels(path.join(folder, "run-kernels"), device),
        oracle: () => runOracle(backend),
        dense: () => countOf(run(path.join(folder, "fused-against-dense"), [oracleModel, "0.01", "gpu"])),
        fallback: () => countOf(run(path.join(folder, "gpu-fallback"), [oracleModel])),
        architectures: () => countOf(run(process.execPath, [
            path.join(packageRoot, "scripts", "check-architectures.js"), "--gpu", backend, ...(noBuild ? ["--no-build"] : []), ...architectures
        ]))
    };
    const results = [];
    for (const part of only.filter((part) => part !== "bench")) {
        console.error(`== ${parts[part]}`);
        results.push({part, ...checks[part]()});
    }
    const bench = only.includes("bench")
        ? runBench(backend, model)
        : undefined;

    const table = layOut(backend, device, results, bench);
    console.log(table);
    if (markdown != null)
        fs.writeFileSync(markdown, table);
    if (results.some(({ok}) => !ok) || bench?.ok === false)
        process.exitCode = 1;
});

async function build(backend, only) {
    requireTools(backend);
    prepareSource();
    const options = {name: buildName(backend), gpu: backend, config: "Release", definitions: {}};
    const output = await compile(options);
    install(output, options.name, {gpu: backend, portable: false});

    const targets = {kernels: "run-kernels", dense: "fused-against-dense", fallback: "gpu-fallback", architectures: "check-architecture"};
    for (const part of new Set([...only, "kernels"])) {
        if (targets[part] != null)
            await compile({...options, target: targets[part]});
    }
    if (only.includes("oracle") || only.includes("bench"))
        npmRun("build");
    if (only.includes("oracle"))
        npmRun("build:test");
    return output;
}

function findBuild(backend) {
    const folder = outputFolder(buildName(backend));
    if (!fs.existsSync(folder))
        throw new UserError(`--no-build is set, and there is no ${path.relative(process.cwd(), folder)}`);
    return folder;
}

function npmRun(script) {
    const {status} = spawnSync("npm", ["run", "--silent", script], {cwd: packageRoot, stdio: ["ignore", 2, 2], shell: process.platform === "win32"});
    if (status !== 0)
        throw new UserError(`npm run ${script} failed`);
}

/** The first device that is no CPU, as ggml calls it, with what the backend says of it when it is loaded. */
function findDevice(program) {
    const {status, stdout, stderr} = spawnSync(program, [], {encoding: "utf8"});
    const devices = stdout.split("\n").map((line) => /^(\S+): (.*)$/.exec(line)).filter((match) => match != null && match[1] !== "CPU");
    if (status !== 0 || devices.length === 0)
        throw new UserError(`llama.cpp finds no device here. ${stderr.trim()}`);

    const [[, name, description]] = devices;
    const details = stderr.split("\n")
        .map((line) => /^ggml_vulkan: 0 = (.*)$|^\s+(Device 0: .*)$|^ggml_metal_\w+: (GPU name: .*)$/.exec(line))
        .find((match) => match != null)?.slice(1).find((text) => text != null);
    return {name, description, details};
}

/** Runs a program whose last line tells how many checks passed; its output is shown as it comes. */
function run(program, args, env = {}) {
    const {status, signal, stdout} = spawnSync(program, args, {
        encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], maxBuffer: 2 ** 28, cwd: packageRoot, env: {...process.env, ...env}
    });
    process.stderr.write(stdout);
    return {status, signal, stdout};
}

function countOf({status, signal, stdout}) {
    const [, passed = 0, failed = 0, skipped = 0] = /(\d+) passed, (\d+) failed(?:, (\d+) skipped)?/.exec(stdout.trim().split("\n").at(-1)) ?? [];
    return {
        passed: Number(passed), failed: Number(failed), skipped: Number(skipped), ok: status === 0 && Number(passed) > 0,
        note: signal == null
            ? ""
            : `ended with ${signal}`
    };
}

function runKernels(program, {name, description}) {
    if (!description.includes("llvmpipe"))
        return countOf(run(program, [name]));

    const slow = "MLA, queries 70";
    return {...countOf(run(program, [name, `!${slow}`])), note: `without "${slow}", a shader that llvmpipe compiles for many minutes`};
}

function runOracle(backend) {
    const {status, stdout} = run(process.execPath, [
        path.join(packageRoot, "node_modules", "ava", "entrypoints", "cli.mjs"), "--tap", "dist-test/oracle/oracle.test.js"
    ], {REATTEND_TEST_GPU: backend});
    const count = (pattern) => stdout.match(pattern)?.length ?? 0;
    return {passed: count(/^ok /gm), failed: count(/^not ok /gm), skipped: 0, ok: status === 0, note: ""};
}

function runBench(backend, model) {
    console.error(`== ${parts.bench}`);
    const {status, stdout} = run(process.execPath, [
        path.join(packageRoot, "dist", "cli", "cli.js"), "bench", "--json", "--gpu", backend, ...(model == null ? [] : ["--model", model])
    ]);
    return status === 0
        ? {ok: true, ...JSON.parse(stdout)}
        : {ok: false};
}

function layOut(backend, {name, description, details}, results, bench) {
    const {version} = JSON.parse(fs.readFileSync(path.join(packageRoot, "package.json"), "utf8"));
    const driver = driverVersion(backend);
    const lines = [
        `### reattend on ${backend}: ${description}`,
        "",
        "| | |",
        "|---|---|",
        `| device | ${name}: ${details == null ? description : details.replaceAll("|", ",")} |`,
        ...(driver == null ? [] : [`| driver | ${driver} |`]),
        `| versions | reattend ${version}, llama.cpp ${llamaCppRelease().release}, Node.js ${process.version} |`,
        `| system | ${os.type()} ${os.release()} ${process.arch}, ${os.cpus()[0]?.model.trim()} |`,
        `| date | ${new Date().toISOString().slice(0, 10)} |`
    ];
    if (results.length > 0)
        lines.push(
            "",
            "| check | passed | failed | skipped | |",
            "|---|---|---|---|---|",
            ...results.map(({part, passed, failed, skipped, ok, note}) => (
                `| ${parts[part]} | ${passed} | ${failed} | ${skipped} | ${[ok ? "passes" : "**fails**", note].join(" ").trim()} |`
            ))
        );
    if (bench?.ok)
        lines.push(
            "",
            `| ${path.basename(bench.model)}, ${bench.kernel} | off, tokens/s | on, tokens/s | on ÷ off |`,
            "|---|---|---|---|",
            ...bench.prefill.map(({tokens, ...rest}) => `| prefill of ${tokens} | ${costs(rest)} |`),
            ...bench.decode.map(({depth, ...rest}) => `| decode at ${depth} | ${costs(rest)} |`)
        );
    return lines.join("\n") + "\n";
}

function costs({off, on, ratio}) {
    return [off.toFixed(1), on.toFixed(1), ratio.toFixed(3)].join(" | ");
}

/** From the tools that come with drivers, where they are there. */
function driverVersion(backend) {
    const [command, args, pattern] = {
        cuda: ["nvidia-smi", ["--query-gpu=driver_version", "--format=csv,noheader"], /(\S+)/],
        vulkan: ["vulkaninfo", ["--summary"], /driverInfo\s+= (.*)/],
        metal: ["sw_vers", ["-productVersion"], /(\S+)/]
    }[backend];
    if (findCommand(command) == null)
        return undefined;
    const {stdout} = spawnSync(command, args, {encoding: "utf8"});
    return pattern.exec(stdout ?? "")?.[1];
}

function readArguments() {
    try {
        const {values} = parseArgs({options: {
            backend: {type: "string"},
            only: {type: "string"},
            model: {type: "string", short: "m"},
            markdown: {type: "string"},
            "no-build": {type: "boolean", default: false},
            help: {type: "boolean", short: "h"}
        }});
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }
        if (values.backend == null)
            throw new Error("--backend is missing");
        if (!gpuTypes.includes(values.backend))
            throw new Error(`--backend is ${JSON.stringify(values.backend)}; allowed are ${gpuTypes.join(", ")}`);
        const only = values.only?.split(",") ?? Object.keys(parts);
        const unknown = only.find((part) => !Object.hasOwn(parts, part));
        if (unknown != null)
            throw new Error(`--only has ${JSON.stringify(unknown)}; allowed are ${Object.keys(parts).join(", ")}`);
        if (values.model != null && !fs.existsSync(values.model))
            throw new Error(`--model is ${values.model}, and there is no such file`);
        return {...values, only};
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
