import {spawn} from "node:child_process";
import process from "node:process";
import {fileURLToPath} from "node:url";

export type BuildFlags = {
    gpu: string,
    portable?: boolean,
    debug?: boolean,
    jobs?: number
};

const script = fileURLToPath(new URL("../../scripts/build-native.js", import.meta.url));

/** What the package's installation does, for the GPU that is named; the script says all there is to say. */
export async function runBuild({gpu, portable, debug, jobs}: BuildFlags): Promise<void> {
    const args = [
        "--gpu", gpu, ...(portable ? ["--portable"] : []), ...(debug ? ["--debug"] : []),
        ...(jobs == null ? [] : ["--jobs", String(jobs)])
    ];
    const child = spawn(process.execPath, [script, ...args], {stdio: "inherit"});
    const ignore = () => {}; // Ctrl-C reaches the script, which ends when it is right to
    process.on("SIGINT", ignore);
    process.exitCode = await new Promise<number>((resolve, reject) => {
        child.on("error", reject).on("close", (code) => resolve(code ?? 1));
    });
    process.off("SIGINT", ignore);
}
