import fs from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import {pageMark} from "../htmlPage.js";
import {renderHtmlReport} from "../inspect/htmlReport.js";
import {inspectAttention, tokenizeText} from "../inspect/inspectAttention.js";
import {jsonReport} from "../inspect/jsonReport.js";
import {layOutInspection} from "../inspect/terminalReport.js";
import {writeWhole} from "../writeWhole.js";
import {exitCode, Failure, UsageError} from "./failure.js";
import {emulationOptions} from "./flags.js";
import {abortOnInterrupt} from "./interruption.js";
import {openModel, reportAsFlag, startEmulation} from "./model.js";
import {startProgress} from "./progress.js";
import {readPrompt} from "./prompt.js";
import {colorsFor, note, print, terminalWidth} from "./terminal.js";
import type {EmulationFlags, ModelFlags} from "./flags.js";
import type {PromptFlags} from "./prompt.js";

export type InspectFlags = ModelFlags & EmulationFlags & PromptFlags & {
    output?: string,
    force?: boolean,
    terminal?: boolean,
    json?: boolean,
    layers?: number[],
    heads?: number[]
};

export async function runInspect(promptArgument: string | undefined, flags: InspectFlags): Promise<void> {
    if (flags.json && flags.terminal)
        throw new UsageError("--json and --terminal both print on standard output; allowed is one of them");
    if (flags.force && flags.output == null)
        throw new UsageError("--force is about the file of --output, which is not given");
    const prompt = await readPrompt(promptArgument, flags);
    // before anything is computed, so that nothing is lost
    if (flags.output != null)
        await checkOutput(flags.output, flags.force ?? false);

    const signal = abortOnInterrupt();
    await using opened = await openModel(flags);
    const {model, context} = opened;
    startEmulation(context, emulationOptions(flags)).dispose(); // bad options are reported before anything is computed
    const tokens = tokenizeText(model, prompt);
    if (tokens.length > context.contextSize)
        throw new Failure(
            `the text has ${tokens.length} tokens, but the context has room for ${context.contextSize}; `
            + `allowed are shorter texts, or a larger --context-size (the model was trained with ${model.trainContextSize})`
        );

    const progress = startProgress("looking");
    const inspection = await inspectAttention(context, context.getSequence(), tokens, {
        emulation: emulationOptions(flags),
        layers: flags.layers,
        heads: flags.heads,
        signal,
        onProgress: (run, fraction) => {
            progress.text = `${run}: ${Math.floor(fraction * 100)} %`;
        }
    }).catch((error: unknown) => {
        if (!signal.aborted)
            reportAsFlag(error, ["layers", "heads"]);
    }).finally(() => progress.stop());
    if (inspection == null || signal.aborted) {
        process.exitCode = exitCode.interrupted;
        return;
    }

    if (flags.output != null) {
        await writeWhole(flags.output, await renderHtmlReport(inspection)).catch((error: unknown) => {
            throw new Failure(`cannot write --output ${flags.output}: ${(error as Error).message}`, {cause: error});
        });
        note(`The report is in ${flags.output}`);
    }
    if (flags.json)
        print(JSON.stringify(jsonReport(inspection)));
    else if (flags.terminal || flags.output == null)
        print(layOutInspection(inspection, {width: terminalWidth(process.stdout), colors: colorsFor(process.stdout)}));
    if (!flags.json && !flags.terminal && flags.output == null && process.stderr.isTTY)
        note("\nAll of it, as a page for the browser: --output report.html");
}

/** Says what would keep the file from being written. */
async function checkOutput(file: string, force: boolean): Promise<void> {
    if (file === "")
        throw new UsageError("--output is empty; a file's name belongs there");
    const folder = path.dirname(path.resolve(file));
    try {
        if (!(await fs.stat(folder)).isDirectory())
            throw new Error(`${folder} is no folder`);
        await fs.access(folder, fs.constants.W_OK);
    } catch (error) {
        const {code} = error as NodeJS.ErrnoException;
        throw new Failure(`cannot write --output ${file}: ${code === "ENOENT" ? `there is no folder ${folder}` : (error as Error).message}`, {cause: error});
    }

    const stats = await fs.stat(file).catch(() => undefined);
    if (stats?.isDirectory())
        throw new Failure(`cannot write --output ${file}: it is a folder`);
    if (stats?.isFile() && !force && !await isPageOfOurs(file))
        throw new Failure(`--output ${file} is there already, and is no page of reattend's; to overwrite it add --force`);
}

async function isPageOfOurs(file: string): Promise<boolean> {
    const handle = await fs.open(file);
    try {
        const {buffer, bytesRead} = await handle.read(Buffer.alloc(pageMark.length), 0, pageMark.length, 0);
        return bytesRead === 0 || buffer.toString("utf8", 0, bytesRead) === pageMark;
    } finally {
        await handle.close();
    }
}
