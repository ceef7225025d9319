import {spawn} from "node:child_process";
import process from "node:process";
import {fileURLToPath} from "node:url";
import test from "ava";
import type {ExecutionContext} from "ava";
import type {ChildProcess} from "node:child_process";

export const cliPath = fileURLToPath(import.meta.resolve("#dist/cli/cli.js"));

export type CliResult = {
    code: number | null,
    stdout: string,
    stderr: string
};

type CliOptions = {
    input?: string,
    env?: Record<string, string>,

    /** Called once it runs. */
    onStart?: (child: ChildProcess) => void,

    /** Called with all that is on stdout so far, each time there is more. */
    onOutput?: (output: string, child: ChildProcess) => void,

    /** The same for stderr. */
    onStderr?: (output: string, child: ChildProcess) => void
};

/** Runs `reattend` as its users do. Without input, its standard input is empty. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    return await runProcess(process.execPath, [cliPath, ...args], options);
}

/** A test that runs a command on a terminal. */
export function testOnTerminal(title: string, run: (t: ExecutionContext) => Promise<void>): void {
    if (process.platform === "linux")
        test(title, run);
    else
        test.skip(`${title} [skipped: what gives a command a terminal takes other flags on ${process.platform}]`, run);
}

/** The same on a terminal, with what goes to stdout and stderr in one; for Linux only. */
export async function runInTerminal(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    const command = `stty columns 80; exec "${process.execPath}" "${cliPath}" ${args.map((arg) => `"${arg}"`).join(" ")}`;
    return await runProcess("script", ["--quiet", "--return", "--command", command, "/dev/null"], {
        ...options, env: {NO_COLOR: "1", TERM: "xterm", ...options.env}
    });
}

export async function runProcess(
    command: string, args: readonly string[], {input = "", env = {}, onStart, onOutput, onStderr}: CliOptions = {}
): Promise<CliResult> {
    const child = spawn(command, args, {env: {...process.env, ...env}});
    onStart?.(child);
    const exit = new Promise<number | null>((resolve) => child.on("close", resolve));

    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        onOutput?.(output, child);
    });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
        stderr += chunk.toString();
        onStderr?.(stderr, child);
    });
    // a command may end without reading its input
    child.stdin.on("error", () => undefined);
    if (onOutput == null)
        child.stdin.end(input);
    else
        child.stdin.write(input);

    return {code: await exit, stdout: output, stderr};
}
