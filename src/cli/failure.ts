import process from "node:process";

export const exitCode = {
    success: 0,
    failure: 1,
    badUsage: 2,
    interrupted: 130
} as const;

/** The command line was wrong: said in one sentence, and the process exits with code 2. */
export class UsageError extends Error {
    override name = "UsageError";
}

/** Something that can happen to anyone went wrong, such as a missing file: said in one sentence, and the exit code is 1. */
export class Failure extends Error {
    override name = "Failure";
}

/** Says what went wrong on stderr, and returns the exit code for it. */
export function reportError(error: unknown, {debug}: {debug: boolean}): number {
    const message = error instanceof Error
        ? error.message
        : String(error);
    process.stderr.write(`reattend: ${message}\n`);

    if (debug && error instanceof Error)
        process.stderr.write(`${error.stack ?? ""}\n${error.cause == null ? "" : `caused by ${describeCause(error.cause)}\n`}`);

    return error instanceof UsageError
        ? exitCode.badUsage
        : exitCode.failure;
}

function describeCause(cause: unknown): string {
    return cause instanceof Error
        ? cause.stack ?? cause.message
        : String(cause);
}
