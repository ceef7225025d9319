import process from "node:process";
import {Chalk} from "chalk";
import wrapAnsi from "wrap-ansi";
import type {ChalkInstance} from "chalk";
import type {WriteStream} from "node:tty";

/** Colours are for where a person sees them: on a terminal, unless NO_COLOR asks for none (https://no-color.org). */
export function usesColors(stream: WriteStream): boolean {
    const unwanted = (process.env.NO_COLOR ?? "") !== "" || process.env.TERM === "dumb";
    return stream.isTTY && !unwanted;
}

export function colorsFor(stream: WriteStream): ChalkInstance {
    return new Chalk({level: usesColors(stream) ? 1 : 0});
}

/** The width of the terminal, or `undefined` where the output goes elsewhere. */
export function terminalWidth(stream: WriteStream): number | undefined {
    return stream.isTTY
        ? stream.columns
        : undefined;
}

/** Breaks lines between words where they are too long for the terminal; elsewhere they stay as they are. */
export function wrap(text: string, stream: WriteStream, {indent = 0}: {indent?: number} = {}): string {
    const width = terminalWidth(stream) || undefined;
    const wrapped = width == null
        ? text
        : text.replace(/^( *)(.*)/gm, (_, start: string, line: string) => (
            start + wrapAnsi(line, Math.max(width - indent - start.length, 20))
        ));
    return wrapped.replace(/^/gm, " ".repeat(indent));
}

/** Results go to stdout, and nothing else does. */
export function print(text: string): void {
    process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
    print(JSON.stringify(value, undefined, 4));
}

/** Hints and notes for the person at the terminal. */
export function note(text: string): void {
    process.stderr.write(`${wrap(text, process.stderr)}\n`);
}
