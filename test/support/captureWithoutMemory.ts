// Captures rows that there is no memory for, in a process of its own: node captureWithoutMemory.js
// writes what it is told, and what is captured afterwards, to standard output, as JSON.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import process from "node:process";
import {captureAttention} from "reattend";
import {createContext} from "./oracleModel.js";
import {randomTokens} from "./tokens.js";
import type {Token} from "reattend";

const mebibyte = 1024 ** 2;

/** What is thrown where there is little more memory than is in use; "" if nothing is. */
async function withoutMemory(run: () => unknown): Promise<string> {
    const inUse = Number(/VmSize:\s*(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
    limitMemory(`${inUse + 60 * mebibyte}:unlimited`);
    try {
        await run();
        return "";
    } catch (error) {
        return (error as Error).message;
    } finally {
        limitMemory("unlimited:unlimited");
    }
}

function limitMemory(limit: string): void {
    execFileSync("prlimit", [`--pid=${process.pid}`, `--as=${limit}`]);
}

const tokens = randomTokens(4000, 34) as Token[];
const context = await createContext({contextSize: 4096});
const sequence = context.getSequence();
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 3000));

const capture = captureAttention(context, {weights: true});
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 3));
const evaluated = await withoutMemory(() => sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(3, 703)));
const afterFailure = capture.read().rowIndices.length;

// nothing of the batch is left in the KV cache, so that the sequence goes on
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(3, 5));
const goesOn = capture.read().rowIndices.length;

await sequence.clearHistory();
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 1500));
const read = await withoutMemory(() => capture.read());
const rows = capture.read().rowIndices.length;

process.stdout.write(JSON.stringify({evaluated, afterFailure, goesOn, read, rows}), () => process.exit());
