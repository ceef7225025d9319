import process from "node:process";
import ora from "ora";
import {usesColors} from "./terminal.js";

/** It has to be stopped also where an error is thrown: on a terminal, a process with one that runs never ends. */
export type ProgressLine = Disposable & {
    text: string,
    stop(): void
};

/** A line on stderr that says what is going on: live on a terminal, nothing elsewhere. */
export function startProgress(text: string): ProgressLine {
    // a terminal that knows no width has 0 columns; ora would count endlessly many lines there
    const isTerminal = process.stderr.isTTY && process.stderr.columns > 0 && process.env.TERM !== "dumb";
    const spinner = ora({
        text,
        stream: process.stderr,
        isEnabled: isTerminal,
        color: usesColors(process.stderr) ? "cyan" : false,
        isSilent: !isTerminal,
        // otherwise it takes stdin from those who read it, and Ctrl-C with it
        discardStdin: false
    }).start();
    return {
        set text(line: string) {
            spinner.text = line;
        },
        stop: () => void spinner.stop(),
        [Symbol.dispose]: () => void spinner.stop()
    };
}
