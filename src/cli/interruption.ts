import process from "node:process";
import {exitCode} from "./failure.js";

/** The first Ctrl-C aborts the signal, so that a command can end in order; a second one ends the process at once. */
export function abortOnInterrupt(): AbortSignal {
    const controller = new AbortController();
    process.on("SIGINT", () => {
        if (controller.signal.aborted)
            process.exit(exitCode.interrupted);
        controller.abort();
    });
    return controller.signal;
}
