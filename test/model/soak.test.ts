import {execFile} from "node:child_process";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {promisify} from "node:util";
import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";
import {linearGain, ReferenceLlama} from "../support/ReferenceLlama.js";
import type {ExecutionContext} from "ava";

/*
 * Long use leaks nothing, crashes nothing and stays right. `npm run test:soak` runs it in full.
 */

const full = process.argv.includes("--full");
const decodes = full ? 10_000 : 600;
const contexts = full ? 200 : 20;

// where one context of three is kept, it is 21 MB; up to 5 MB come and go
const allowedGrowth = 8 * 1024 ** 2;

// glibc gives memory back as it is freed, where it would keep tens of megabytes in the arenas of threads that come and go
const env = {...process.env, MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: "65536", MALLOC_TRIM_THRESHOLD_: "65536"};

// V8 sets aside, and gives back, up to 16 MB at once for young objects, which may not be resident
const nodeFlags = ["--max-semi-space-size=1"];

const memoryOfRounds = fileURLToPath(new URL("../support/memoryOfRounds.js", import.meta.url));
const tokens = randomTokens(40, 16);
const reference = await ReferenceLlama.read(oracleModelPath);

test.serial(`${decodes} decodes of two sequences, the strength changed at each and in between`, async (t) => {
    const {growth, changes, logits} = await run("decodes", decodes);
    t.log(`memory grew by ${growth} bytes, ${changes} changes by the timer`);
    t.true(growth <= allowedGrowth, `memory grew by ${growth} bytes`);
    t.true(changes! > 0);
    isRight(t, logits);
});

test.serial(`${contexts} contexts made, emulated, and disposed or dropped`, async (t) => {
    const {growth, logits} = await run("contexts", contexts);
    t.log(`memory grew by ${growth} bytes`);
    t.true(growth <= allowedGrowth, `memory grew by ${growth} bytes`);
    isRight(t, logits);
});

test.serial("a context can be disposed while it decodes", async (t) => {
    for (let i = 0; i < 20; i++) {
        const context = await createContext();
        const emulation = emulateAttention(context, {strength: 0.5});
        const evaluation = evaluateInChunks(context.getSequence(), tokens, [30]);
        await new Promise((resolve) => setTimeout(resolve, i % 5));
        const disposal = context.dispose();
        t.true(emulation.disposed);
        await Promise.allSettled([evaluation, disposal]);
    }
    t.false(oracleModel.disposed);
});

async function run(kind: "decodes" | "contexts", rounds: number): Promise<{growth: number, changes?: number, logits: Float32Array[]}> {
    const {stdout} = await promisify(execFile)(process.execPath, [...nodeFlags, memoryOfRounds, kind, `${rounds}`], {env, maxBuffer: 2 ** 24});
    const result = JSON.parse(stdout) as {growth: number, changes?: number, logits: number[][]};
    return {...result, logits: result.logits.map((row) => Float32Array.from(row))};
}

function isRight(t: ExecutionContext, logits: Float32Array[]): void {
    const expected = reference.logits(tokens, {
        strength: 0.5,
        threshold: 0.01,
        sourceLayer: 0,
        gain: linearGain(reference.layerCount),
        pattern: "early-layer",
        normalize: false
    });
    const error = worstNmse(logits, expected);
    t.true(error <= allowedNmse, `NMSE ${error}`);
}
