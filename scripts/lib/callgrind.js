// Instructions as valgrind's callgrind counts them, which no other process disturbs.
import {findCommand} from "./tools.js";

/** For a program that is run after them, with the number in what they write to stderr. */
export const callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/** @returns {string | undefined} why instructions can't be counted here */
export function whyNoCallgrind() {
    return findCommand("valgrind") == null
        ? "valgrind is not there; install it with: apt install valgrind"
        : undefined;
}

/** @throws {Error} with the end of what valgrind said, if it tells no count */
export function readCount(stderr) {
    const [, count] = /Collected : (\d+)/.exec(stderr) ?? [];
    if (count == null)
        throw new Error(`valgrind tells no count: ${stderr.trim().split("\n").slice(-5).join("\n")}`);
    return Number(count);
}
