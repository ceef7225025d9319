import process from "node:process";
import ora from "ora";
import type {Ora} from "ora";

/** A line on stderr that says what is going on: live on a terminal, nothing elsewhere. */
export function startProgress(text: string): Ora {
    return ora({
        text,
        stream: process.stderr,
        isEnabled: process.stderr.isTTY && process.env.TERM !== "dumb",
        isSilent: !process.stderr.isTTY,
        // otherwise it takes stdin from those who read it, and Ctrl-C with it
        discardStdin: false
    }).start();
}
