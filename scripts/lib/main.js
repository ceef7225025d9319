import process from "node:process";

/** Something that the user can mend: told in one message, without a stack. */
export class UserError extends Error {}

/** Runs a script's body: a `UserError` becomes its message and exit code 1, Ctrl-C exit code 130. */
export async function runMain(name, body) {
    process.on("SIGINT", () => process.exit(130));
    process.on("SIGTERM", () => process.exit(143));
    try {
        await body();
    } catch (error) {
        console.error(error instanceof UserError
            ? `${name}: ${error.message}`
            : error);
        process.exitCode = 1;
    }
}

/** Tells about bad usage and leaves with exit code 2. */
export function badUsage(message, usage) {
    console.error(`${message}\n\n${usage}`);
    process.exit(2);
}
