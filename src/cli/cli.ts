#!/usr/bin/env node
import process from "node:process";
import {CommanderError} from "commander";
import {exitCode, reportError} from "./failure.js";
import {createProgram} from "./program.js";

exitQuietlyOnClosedPipe();

try {
    await createProgram().parseAsync();
} catch (error) {
    if (error instanceof CommanderError) // commander has said it already; help and version end this way too
        process.exitCode = error.exitCode === 0 ? exitCode.success : exitCode.badUsage;
    else
        process.exitCode = reportError(error, {debug: process.argv.includes("--debug")});
}

/** A reader that has seen enough, such as `head`, is no error. */
function exitQuietlyOnClosedPipe(): void {
    for (const stream of [process.stdout, process.stderr]) {
        stream.on("error", (error: NodeJS.ErrnoException) => {
            if (error.code === "EPIPE")
                process.exit(0);
            throw error;
        });
    }
}
