import os from "node:os";
import path from "node:path";
import process from "node:process";
import {packageRoot} from "./paths.js";

/** Something that the user can mend: told in one message, without a stack. */
export class UserError extends Error {}

/** What asks a script to end: Ctrl-C, `kill` and a terminal that is closed. */
export const endingSignals = ["SIGINT", "SIGTERM", "SIGHUP"];

/** The exit code that shells give a process that a signal has ended. */
export function exitCodeOf(signal) {
    return 128 + os.constants.signals[signal];
}

/** Runs a script's body: a `UserError` becomes its message and exit code 1, Ctrl-C exit code 130. */
export async function runMain(name, body) {
    for (const signal of endingSignals)
        process.on(signal, () => process.exit(exitCodeOf(signal)));
    // what is told there is not the result, so the work goes on without a reader
    process.stderr.on("error", () => {});
    try {
        await body();
    } catch (error) {
        const message = error instanceof UserError
            ? error.message
            : describeFileError(error);
        console.error(message == null
            ? error
            : `${name}: ${message}`);
        process.exitCode = 1;
    }
}

/** Tells about bad usage and leaves with exit code 2. */
export function badUsage(message, usage) {
    console.error(`${message}\n\n${usage}`);
    process.exit(2);
}

const fileErrors = {
    EACCES: "permission denied; the build needs a folder that its user may write to",
    EPERM: "the operation is not permitted; the build needs a folder that its user may write to, on a file system with hard links",
    EROFS: "the file system is read-only; the build needs one that can be written to",
    ENOSPC: "no space is left on the disk; a build for the CPU needs 300 MB, one for a GPU more",
    EDQUOT: "the disk quota is used up; a build for the CPU needs 300 MB, one for a GPU more"
};

/** A sentence for what the machine refuses to do with files; `undefined` where it is another error. */
export function describeFileError(error) {
    const reason = fileErrors[error?.code];
    if (reason == null)
        return undefined;
    // a write to an open file has no path
    const file = error.dest ?? error.path ?? path.join(packageRoot, "native");
    const verb = error.syscall?.startsWith("spawn")
        ? "run"
        : verbs[error.syscall] ?? "write to";
    return `cannot ${verb} ${file}: ${reason} (${error.code})`;
}

const verbs = {
    open: "open", mkdir: "make", unlink: "remove", rmdir: "remove", rm: "remove", scandir: "read", read: "read", stat: "read", lstat: "read",
    copyfile: "copy to", rename: "rename to", link: "make", utime: "write to"
};
