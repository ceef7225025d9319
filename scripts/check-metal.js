#!/usr/bin/env node
// Runs ggml's Metal backend with our kernels, host's side and shaders, on the CPU against the reference in 64 bits, in all cases: see
// test/kernels/metal-on-cpu. What a Mac would add is its compiler and its hardware: on one, `npm run check:gpu` has the last word.
import {spawnSync} from "node:child_process";
import path from "node:path";
import process from "node:process";
import {translate} from "../test/kernels/metal-on-cpu/translate.js";
import {withBuildLock} from "./lib/lock.js";
import {runMain, UserError} from "./lib/main.js";
import {compile} from "./lib/native-build.js";
import {buildFolder, sourceFolder} from "./lib/paths.js";
import {prepareSource} from "./lib/source.js";
import {requireTools} from "./lib/tools.js";

await runMain("check-metal", async () => {
    if (process.platform !== "linux" || process.arch !== "x64") {
        console.log("skipped: the stand-in for a Metal device is made for Linux on x64");
        return;
    }
    requireTools();
    const folder = await withBuildLock(() => {
        prepareSource();
        const kernels = path.join(buildFolder, "metal-kernels");
        translate(path.join(sourceFolder, "ggml", "src", "ggml-metal"), kernels);
        return compile({
            name: "metal-on-cpu",
            gpu: false,
            config: "Release",
            target: "metal-on-cpu",
            definitions: {REATTEND_ADDON: "OFF", REATTEND_METAL_KERNELS: kernels}
        });
    });

    const {status, signal} = spawnSync(path.join(folder, "metal-on-cpu"), ["MTL0", ...process.argv.slice(2)], {stdio: "inherit"});
    if (status !== 0)
        throw new UserError(`Metal's kernels failed${signal == null ? "" : ` (${signal})`}`);
});
