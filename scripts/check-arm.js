#!/usr/bin/env node
// Runs the CPU's kernels as compiled for ARM, with NEON, against the reference in 64 bits: a cross-compiler and an emulator do where
// there is no such machine.
import {spawnSync} from "node:child_process";
import path from "node:path";
import process from "node:process";
import {compileTarget} from "./lib/compile-target.js";
import {runMain, UserError} from "./lib/main.js";
import {findCommand} from "./lib/tools.js";

const compilers = {CMAKE_C_COMPILER: "aarch64-linux-gnu-gcc", CMAKE_CXX_COMPILER: "aarch64-linux-gnu-g++"};
const emulator = "qemu-aarch64";

await runMain("check-arm", async () => {
    for (const tool of [...Object.values(compilers), emulator]) {
        if (findCommand(tool) == null)
            throw new UserError(`${tool} is not there; install it with: apt install g++-aarch64-linux-gnu qemu-user`);
    }
    const folder = await compileTarget({
        name: "arm",
        target: "run-kernels",
        definitions: {
            ...compilers,
            CMAKE_SYSTEM_NAME: "Linux",
            CMAKE_SYSTEM_PROCESSOR: "aarch64",
            // what every ARM machine of the last years has, Apple's too
            GGML_CPU_ARM_ARCH: "armv8.2-a+dotprod+fp16",
            GGML_NATIVE: "OFF",
            REATTEND_ADDON: "OFF"
        }
    });

    const {status, signal} = spawnSync(
        emulator, ["-L", "/usr/aarch64-linux-gnu", path.join(folder, "run-kernels"), "CPU", ...process.argv.slice(2)], {stdio: "inherit"}
    );
    if (status !== 0)
        throw new UserError(`the kernels failed${signal == null ? "" : ` (${signal})`}`);
});
