import {spawn} from "node:child_process";
import os from "node:os";
import process from "node:process";
import {fileURLToPath} from "node:url";

export type BuildFlags = {
    gpu?: string,
    portable?: boolean,
    debug?: boolean,
    jobs?: number
};

const script = fileURLToPath(new URL("../../scripts/build-native.js", import.meta.url));

/** What the package's installation does, or for the GPU that is named; the script says all there is to say. */
export async function runBuild({gpu, portable, debug, jobs}: BuildFlags): Promise<void> {
    const args = [
        ...(gpu == null ? [] : ["--gpu", gpu]), ...(portable ? ["--portable"] : []), ...(debug ? ["--debug"] : []),
        ...(jobs == null ? [] : ["--jobs", String(jobs)])
    ];
    const child = spawn(process.execPath, [script, ...args], {stdio: "inherit"});

    // the script stops its compilers and ends when it is right to; Ctrl-C may reach it twice, which does no harm
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
    const forward = (signal: NodeJS.Signals) => {
        // there, this would end it at once; Ctrl-C reaches it anyway
        if (process.platform !== "win32")
            child.kill(signal);
    };
    signals.forEach((signal) => process.on(signal, forward));
    process.exitCode = await new Promise<number>((resolve, reject) => {
        child.on("error", reject).on("close", (code, signal) => resolve(code ?? 128 + os.constants.signals[signal!]));
    });
    signals.forEach((signal) => process.off(signal, forward));
}
