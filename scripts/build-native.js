#!/usr/bin/env node
import path from "node:path";
import process from "node:process";
import {parseArgs} from "node:util";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain} from "./lib/main.js";
import {compile, install} from "./lib/native-build.js";
import {requireNode} from "./lib/node-version.js";
import {buildName, gpuTypes} from "./lib/paths.js";
import {formatTime} from "./lib/progress.js";
import {prepareSource} from "./lib/source.js";
import {requireTools} from "./lib/tools.js";

const usage = `usage: build-native [options]

Compiles llama.cpp, with our patches, and the addon for Node.js into native/bin. Does only what is not done yet.

  --gpu cuda|vulkan|metal|false   compute with it; default: metal on Apple silicon, else false (CPU only);
                                  the environment variable REATTEND_GPU says the same
  --portable                      for other machines, too, not only for the processor at hand: on x64 for those with AVX2, FMA, F16C and
                                  BMI2 (Intel's since 2013, AMD's since 2015), on ARM for all of 64 bits; slower where the processor has
                                  more. With --gpu cuda for all generations of GPUs, and where none is at hand. REATTEND_PORTABLE=1 in the
                                  environment says the same
  --debug                         without optimization, for a debugger
  --jobs N                        compilers to run at a time; default: one for each core, as far as memory goes
  -h, --help

REATTEND_SKIP_BUILD=1 in the environment: do nothing, for an install that needs no native part.`;

await runMain("build-native", async () => {
    const {gpu, portable, debug, jobs} = readArguments();
    if (process.env.REATTEND_SKIP_BUILD === "1") {
        console.error("REATTEND_SKIP_BUILD is 1: the native part is not built");
        return;
    }

    const start = Date.now();
    requireNode();
    requireTools(gpu);
    const folder = await withBuildLock(async () => {
        prepareSource();
        const name = buildName(gpu);
        const output = await compile({
            name: [name, ...(portable ? ["portable"] : []), ...(debug ? ["debug"] : [])].join("-"),
            gpu,
            portable,
            config: debug ? "Debug" : "Release",
            definitions: {},
            jobs
        });
        return install(output, name, {gpu, portable});
    });
    console.error(`The native part is built: ${path.relative(process.cwd(), folder)} (${formatTime(Date.now() - start)})`);
});

function readArguments() {
    const appleSilicon = process.platform === "darwin" && process.arch === "arm64";
    try {
        const {values} = parseArgs({options: {
            gpu: {type: "string"},
            portable: {type: "boolean", default: false},
            debug: {type: "boolean", default: false},
            jobs: {type: "string"},
            help: {type: "boolean", short: "h"}
        }});
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }

        // an empty variable is none
        const {REATTEND_GPU, REATTEND_PORTABLE} = process.env;
        const gpu = values.gpu ?? (REATTEND_GPU || (appleSilicon ? "metal" : "false"));
        if (gpu !== "false" && !gpuTypes.includes(gpu))
            throw new Error(`${values.gpu == null ? "REATTEND_GPU" : "--gpu"} is ${JSON.stringify(gpu)}; allowed are ${gpuTypes.join(", ")}, false`);
        if (!["", "0", "1"].includes(REATTEND_PORTABLE ?? ""))
            throw new Error(`REATTEND_PORTABLE is ${JSON.stringify(REATTEND_PORTABLE)}; allowed are 0 and 1`);
        if (values.jobs != null && !/^[1-9]\d*$/.test(values.jobs))
            throw new Error(`--jobs is ${JSON.stringify(values.jobs)}; allowed are whole numbers from 1`);
        return {
            gpu: gpu === "false" ? false : gpu,
            portable: values.portable || REATTEND_PORTABLE === "1",
            debug: values.debug,
            jobs: values.jobs == null ? undefined : Number(values.jobs)
        };
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
