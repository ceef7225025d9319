#!/usr/bin/env node
import process from "node:process";
import {CommanderError} from "commander";
import {exitCode, Failure, reportError} from "./failure.js";
import {createProgram} from "./program.js";

watchOutput();

try {
    await createProgram().parseAsync();
} catch (error) {
    if (error instanceof CommanderError) // commander has said it already; help and version end this way too
        process.exitCode = error.exitCode === 0 ? exitCode.success : exitCode.badUsage;
    else
        process.exitCode = reportError(error, {debug: process.argv.includes("--debug")});
}

function watchOutput(): void {
    process.stdout.on("error", (error: NodeJS.ErrnoException) => {
        // a reader that has seen enough, such as `head`, is no error
        process.exit(error.code === "EPIPE"
            ? exitCode.success
            : reportError(new Failure(`cannot write to the standard output: ${error.message}`), {debug: false}));
    });
    // what is told there is not the result, so the work goes on without a reader
    process.stderr.on("error", () => {});
}
