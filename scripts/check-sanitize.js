#!/usr/bin/env node
// Builds the native tests and llama.cpp with checks of addresses and undefined behaviour, and runs them on a small model.
import {spawnSync} from "node:child_process";
import path from "node:path";
import process from "node:process";
import {compileTarget} from "./lib/compile-target.js";
import {listFiles} from "./lib/files.js";
import {runMain, UserError} from "./lib/main.js";
import {packageRoot} from "./lib/paths.js";

const model = path.join(packageRoot, "test", "oracle", "llama-8l.gguf");

await runMain("check-sanitize", async () => {
    const folder = await compileTarget({
        name: "sanitize",
        target: "reattend-tests",
        definitions: {
            REATTEND_ADDON: "OFF",
            REATTEND_SANITIZE: "ON",
            // assertions stay in, and the checks themselves take most of the time
            CMAKE_C_FLAGS_RELEASE: "-O1",
            CMAKE_CXX_FLAGS_RELEASE: "-O1"
        }
    });

    const tests = [
        ["run-kernels", "CPU"],
        ...listFiles(path.join(packageRoot, "test", "native"))
            .filter((file) => file.endsWith(".cpp"))
            .map((file) => [path.basename(file, ".cpp"), model])
    ];
    const failed = tests.filter(([name, argument]) => !passes(path.join(folder, name), argument)).map(([name]) => name);
    if (failed.length > 0)
        throw new UserError(`failed: ${failed.join(", ")}`);
    console.log(`${tests.length} native tests passed without a complaint`);
});

function passes(program, argument) {
    console.log(`== ${path.basename(program)}`);
    const {status} = spawnSync(program, [argument], {
        stdio: "inherit",
        env: {...process.env, ASAN_OPTIONS: "detect_stack_use_after_return=1:strict_string_checks=1", UBSAN_OPTIONS: "print_stacktrace=1"}
    });
    return status === 0;
}
