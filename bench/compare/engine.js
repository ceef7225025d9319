#!/usr/bin/env node
/*
 * A process with one model in reattend or in stock node-llama-cpp, that does a block of work for each line of standard input:
 *
 *   engine.js reattend|stock MODEL.gguf THREADS wall|cpu
 *
 *   open SEQUENCES CONTEXT                      a new context; before all else
 *   fill TOKENS                                 a prompt to decode on top of
 *   prefill MODE TOKENS                         a prompt in an empty context
 *   decode MODE TOKENS                          tokens, one by one, each of them timed; then the context is as it was
 *   parallel MODE together|apart PROMPT TOKENS  a request on each sequence, apart: each when the one before has had some tokens
 *
 * Prefill and decode are timed by the clock named: as time passes, or as all threads together compute.
 * MODE is plain, steered or dense; stock is always plain. The answer is a line of JSON.
 */
import process from "node:process";
import readline from "node:readline";
import {seededRandom} from "#dist/random.js";

const tokensApart = 5;
const strength = 0.2;
const emulations = {plain: undefined, steered: {strength}, dense: {strength, kernel: "dense"}};

const [, , engine, modelPath, threadsText, clock] = process.argv;
const threads = Number(threadsText);
const library = await import(engine === "stock" ? "node-llama-cpp" : "reattend");
const llama = await library.getLlama({
    gpu: false,
    maxThreads: threads,
    logLevel: "error",
    ...(engine === "stock" ? {build: "never", skipDownload: true} : {})
});
const model = await llama.loadModel({modelPath});
const tokens = randomTokens(32_768);

let context;
let sequences = [];
let mode = "plain";
let emulation;
let batches = 0;

const commands = {
    async open(count, contextSize) {
        await context?.dispose();
        emulation = undefined;
        mode = "plain";
        context = await model.createContext({
            sequences: Number(count),
            contextSize: Number(contextSize),
            threads,
            batching: {itemPrioritizationStrategy: countBatches}
        });
        sequences = Array.from({length: Number(count)}, () => context.getSequence());
        return {};
    },

    async fill(length) {
        await sequences[0].clearHistory();
        if (Number(length) > 0)
            await sequences[0].evaluateWithoutGeneratingNewTokens(tokens.slice(0, Number(length)));
        return {};
    },

    async prefill(mode, length) {
        await sequences[0].clearHistory();
        await switchTo(mode);
        await evaluateAndForget(Math.min(Number(length), context.batchSize));
        const prompt = tokens.slice(0, Number(length));
        return {seconds: [await time(() => sequences[0].evaluateWithoutGeneratingNewTokens(prompt))]};
    },

    async decode(mode, count) {
        await switchTo(mode);
        const depth = sequences[0].nextTokenIndex;
        await decodeOne(depth); // as evaluateAndForget
        await shortenTo(sequences[0], depth);

        const seconds = [];
        for (let i = 0; i < Number(count); i++)
            seconds.push(await time(() => decodeOne(depth + i)));
        await shortenTo(sequences[0], depth);
        return {seconds};
    },

    async parallel(mode, arrival, promptLength, count) {
        for (const sequence of sequences)
            await sequence.clearHistory();
        await switchTo(mode);
        await evaluateAndForget(Number(promptLength));
        batches = 0;

        const starts = [];
        const times = sequences.map(() => []);
        const started = sequences.map(withResolver);
        await Promise.all(sequences.map(async (sequence, index) => {
            if (arrival === "apart" && index > 0)
                await started[index - 1].promise;

            starts[index] = performance.now();
            const prompt = tokens.slice(index * 1000, index * 1000 + Number(promptLength));
            const generation = sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true});
            while (times[index].length < Number(count)) {
                await generation.next();
                times[index].push(performance.now());
                if (times[index].length === tokensApart)
                    started[index].resolve();
            }
            await generation.return();
        }));
        return {batches, ...summarize(starts, times)};
    }
};

/** What matters of the times, in ms, at which each request began, and had each of its tokens. */
function summarize(starts, times) {
    // from when all of them generate
    const begin = Math.max(...times.map(([first]) => first));
    const end = Math.max(...times.map((list) => list.at(-1)));
    const generated = times.flat().filter((time) => time > begin).length;

    const firstDone = Math.min(...times.map((list) => list.at(-1)));
    return {
        secondsPerToken: (end - begin) / 1000 / generated,
        firstTokens: times.map(([first], index) => (first - starts[index]) / 1000),
        // by how many tokens the last request is behind when the first one is done; tokens of one batch come one after the other, too
        behind: Math.max(0, ...times.map((list) => list.filter((time) => time > firstDone).length - 1)),
        longestWait: Math.max(...times.flatMap((list) => list.slice(1).map((time, index) => time - list[index]))) / 1000
    };
}

async function switchTo(wanted) {
    if (wanted === mode)
        return;
    emulation?.dispose();
    emulation = emulations[wanted] == null
        ? undefined
        : library.emulateAttention(context, emulations[wanted]);
    mode = wanted;
}

/** Decodes one token and chooses the likeliest next one, as text generation does; but goes on with given tokens. */
async function decodeOne(index) {
    await sequences[0].controlledEvaluate([[tokens[index], {generateNext: {token: true, options: {temperature: 0}}}]]);
}

/** Not timed: wakes the threads, and after a switch reserves memory for the graphs, which the system clears when it is first used. */
async function evaluateAndForget(count) {
    await Promise.all(sequences.map(async (sequence) => {
        const depth = sequence.nextTokenIndex;
        await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(depth, depth + count));
        await shortenTo(sequence, depth);
    }));
}

async function shortenTo(sequence, length) {
    await sequence.eraseContextTokenRanges([{start: length, end: sequence.nextTokenIndex}]);
}

async function time(action) {
    const start = now();
    await action();
    return now() - start;
}

/** In seconds. */
function now() {
    if (clock === "wall")
        return performance.now() / 1000;
    const {user, system} = process.cpuUsage();
    return (user + system) / 1e6;
}

/** As many tokens of each sequence as the batch takes: what the default strategy does while they all fit. */
function countBatches({items, size}) {
    batches++;
    let left = size;
    return items.map((item) => {
        const processAmount = Math.min(item.tokens.length, left);
        left -= processAmount;
        return {item, processAmount};
    }).filter(({processAmount}) => processAmount > 0);
}

// Promise.withResolvers is not there before Node.js 22
function withResolver() {
    let resolve;
    const promise = new Promise((accept) => {
        resolve = accept;
    });
    return {promise, resolve};
}

function randomTokens(length) {
    const candidates = [...model.iterateAllTokens()].filter((token) => !model.isSpecialToken(token) && !model.isEogToken(token));
    const random = seededRandom(1);
    return Array.from({length}, () => candidates[Math.floor(random() * candidates.length)]);
}

for await (const line of readline.createInterface({input: process.stdin})) {
    const [command, ...args] = line.split(" ");
    console.log(JSON.stringify(await commands[command](...args)));
}
await llama.dispose();
