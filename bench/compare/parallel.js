// Requests at the same time: reattend, plain and steered, against stock node-llama-cpp and llama.cpp's own llama-batched-bench.
import {execFile} from "node:child_process";
import path from "node:path";
import {promisify} from "node:util";
import {median} from "#dist/bench/summary.js";
import {whyNoStock} from "../../scripts/lib/stock.js";
import {buildOurs} from "./builds.js";
import {startEngine} from "./engines.js";
import {makeRow, milliseconds, takeTurns, tokensPerSecond} from "./turns.js";

const contextPerSequence = 256;

export async function compareParallel({model, threads, sizes: {parallel}, build, progress}) {
    const {prompt, tokens, rounds} = parallel;
    let batchedBench;
    if (build) {
        progress("building llama-batched-bench");
        batchedBench = path.join(await buildOurs(), "batched-bench");
    }
    const leftOut = [
        whyNoStock(),
        build ? undefined : "llama-batched-bench is not built with --no-build"
    ].filter((reason) => reason != null);

    const reattend = startEngine("reattend", {model, threads});
    const stock = whyNoStock() == null ? startEngine("stock", {model, threads}) : undefined;
    const engines = [reattend, ...(stock == null ? [] : [stock])];

    const rows = [];
    try {
        for (const count of parallel.counts) {
            const requests = (arrival) => ({
                plain: () => reattend.ask("parallel", "plain", arrival, prompt, tokens),
                steered: () => reattend.ask("parallel", "steered", arrival, prompt, tokens),
                ...(stock == null ? {} : {stock: () => stock.ask("parallel", "plain", arrival, prompt, tokens)})
            });
            const told = (kind) => (round) => progress(`${describe(count)}${kind}, round ${round + 1} of ${rounds}`);

            progress("loading the model");
            for (const engine of engines)
                await engine.ask("open", count, contextPerSequence);
            await takeTurns(requests("together"), 1); // brings the weights in

            const together = await takeTurns({
                ...requests("together"),
                ...(batchedBench == null ? {} : {batched: () => runBatchedBench(batchedBench, {model, threads, count, prompt, tokens})})
            }, rounds, told(" together"));
            rows.push(...throughput(count, together, tokens));
            if (count > 1 && stock != null) {
                rows.push(firstTokens(count, "together", together));
                rows.push(firstTokens(count, "apart", await takeTurns(requests("apart"), rounds, told(" apart"))));
            }
        }
    } finally {
        await Promise.all(engines.map((engine) => engine.end()));
    }
    return {
        rows,
        notes: [
            `parallel: each request has a prompt of ${prompt} tokens and generates ${tokens}; tokens/s are those of all requests, once all generate`,
            "behind: by how many tokens the last request is behind when the first one is done; apart: each starts when the one before has had 5 tokens"
        ],
        leftOut: leftOut.length > 0 ? leftOut.join("; ") : undefined
    };
}

function throughput(count, {plain, steered, stock, batched}, tokens) {
    const times = (blocks) => blocks.map(({secondsPerToken}) => secondsPerToken);
    const row = {what: describe(count), plain: times(plain), steered: times(steered), ...tokensPerSecond};
    const batches = (blocks) => median(blocks.map(({batches}) => batches));
    const behind = (blocks) => Math.max(...blocks.map(({behind}) => behind));
    return [
        ...(batched == null
            ? []
            : [makeRow({...row, other: "llama-batched-bench", theirs: times(batched), goal: 0.9})]),
        ...(stock == null
            ? []
            : [makeRow({
                ...row,
                other: "stock",
                theirs: times(stock),
                goal: count > 1 ? 1.1 : undefined,
                note: `${batches(plain)} batches for ${tokens} tokens each, stock ${batches(stock)}; ` +
                    `behind ${Math.max(behind(plain), behind(steered))}, stock ${behind(stock)}`
            })])
    ];
}

/** Of the request that waits longest. */
function firstTokens(count, arrival, {plain, steered, stock}) {
    const times = (blocks) => blocks.map(({firstTokens}) => Math.max(...firstTokens));
    const longestWait = (blocks) => `${(1000 * median(blocks.map(({longestWait}) => longestWait))).toFixed(0)} ms`;
    return makeRow({
        what: `${describe(count)} ${arrival}: slowest first token`,
        other: "stock",
        theirs: times(stock),
        plain: times(plain),
        steered: times(steered),
        note: `longest wait for a later token ${longestWait(plain)}, stock ${longestWait(stock)}`,
        goal: 1,
        ...milliseconds
    });
}

async function runBatchedBench(program, {model, threads, count, prompt, tokens}) {
    const {stdout} = await promisify(execFile)(program, [
        "-m", model, "-t", threads, "-tb", threads, "-c", contextPerSequence * count, "-b", "512", "-ub", "512", "-ngl", "0",
        "-npp", prompt, "-ntg", tokens, "-npl", count, "--output-format", "jsonl"
    ].map(String));
    const line = stdout.split("\n").find((line) => line.startsWith("{"));
    const {t_tg: seconds} = JSON.parse(line);
    return {secondsPerToken: seconds / (count * tokens)};
}

function describe(count) {
    return count === 1
        ? "1 request"
        : `${count} requests`;
}
