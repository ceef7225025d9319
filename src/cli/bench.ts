import process from "node:process";
import Table from "cli-table3";
import {measure, requiredContextSize} from "../bench/measure.js";
import {counted} from "../numberText.js";
import {exitCode, UsageError} from "./failure.js";
import {emulationOptions} from "./flags.js";
import {abortOnInterrupt} from "./interruption.js";
import {openModel, startEmulation} from "./model.js";
import {startProgress} from "./progress.js";
import {colorsFor, print, printJson} from "./terminal.js";
import type {BenchmarkResult} from "../bench/measure.js";
import type {Comparison} from "../bench/summary.js";
import type {EmulationFlags, ModelFlags} from "./flags.js";

export type BenchFlags = ModelFlags & EmulationFlags & {
    depths: number[],
    prefill: number[],
    rounds: number,
    decodeTokens: number,
    clock: "wall" | "cpu",
    json?: boolean
};

export async function runBench(flags: BenchFlags): Promise<void> {
    const needed = requiredContextSize(flags);
    if (flags.contextSize != null && flags.contextSize < needed)
        throw new UsageError(`--context-size is ${flags.contextSize}; allowed are at least ${needed}, which the depths and lengths need`);

    const signal = abortOnInterrupt();
    await using opened = await openModel(flags, flags.contextSize ?? needed);
    const {context} = opened;
    startEmulation(context, emulationOptions(flags)).dispose(); // bad options are reported before anything is measured

    const progress = startProgress("");
    const result = await measure(context, {
        ...flags,
        emulation: emulationOptions(flags),
        signal,
        onProgress: (text) => {
            progress.text = text;
        }
    }).catch((error: unknown) => {
        if (!signal.aborted)
            throw error;
        return undefined;
    }).finally(() => progress.stop());
    if (result == null) {
        process.exitCode = exitCode.interrupted;
        return;
    }

    const conditions = {
        model: flags.model,
        threads: context.currentThreads,
        cacheTypeK: flags.cacheTypeK,
        cacheTypeV: flags.cacheTypeV,
        flashAttention: context.flashAttention,
        batchSize: context.batchSize,
        contextSize: context.contextSize,
        rounds: flags.rounds,
        decodeTokens: flags.decodeTokens,
        clock: flags.clock,
        emulation: emulationOptions(flags)
    };
    if (flags.json)
        printJson({...conditions, ...result});
    else
        print(layOut(result, conditions));
}

function layOut(result: BenchmarkResult, {threads, cacheTypeK, cacheTypeV, flashAttention, batchSize, rounds, clock}: {
    threads: number, cacheTypeK: string, cacheTypeV: string, flashAttention: boolean | "auto", batchSize: number, rounds: number,
    clock: "wall" | "cpu"
}): string {
    const colors = colorsFor(process.stdout);
    const table = new Table({
        head: ["", "off, tokens/s", "on, tokens/s", "on ÷ off", "quartiles"],
        colAligns: ["left", "right", "right", "right", "right"],
        style: {head: [], border: []}
    });
    for (const {tokens, ...comparison} of result.prefill)
        table.push([`prefill of ${tokens}`, ...cells(comparison, colors.bold)]);
    for (const {depth, ...comparison} of result.decode)
        table.push([`decode at ${depth}`, ...cells(comparison, colors.bold)]);

    return [
        `${result.kernel} kernel, ${counted(threads, "thread")}, flash attention ${flashAttention ? "on" : "off"}, ` +
        `KV cache ${cacheTypeK === cacheTypeV ? cacheTypeK : `${cacheTypeK} and ${cacheTypeV}`}, ` +
        `${counted(rounds, "round")}${clock === "cpu" ? ", seconds of CPU time" : ""}`,
        table.toString(),
        "on ÷ off: the median of pairs measured one right after the other",
        `extra memory: ${(result.extraMemoryBytes / 2 ** 20).toFixed(2)} MiB, the pattern of a batch of ${batchSize} tokens`
    ].join("\n");
}

function cells({on, off, ratio, ratioQuartiles}: Comparison, emphasize: (text: string) => string): string[] {
    return [
        speed(off),
        speed(on),
        emphasize(ratio.toFixed(3)),
        ratioQuartiles.map((bound) => bound.toFixed(3)).join(" to ")
    ];
}

function speed(tokensPerSecond: number): string {
    return tokensPerSecond.toFixed(tokensPerSecond < 100 ? 1 : 0);
}
