import process from "node:process";
import {emulateAttention} from "../emulation/emulateAttention.js";
import {seededRandom} from "../random.js";
import {compare} from "./summary.js";
import type {LlamaContext, LlamaContextSequence, LlamaModel, Token} from "node-llama-cpp";
import type {AttentionEmulation} from "../emulation/AttentionEmulation.js";
import type {AttentionEmulationOptions} from "../emulation/options.js";
import type {AttentionProfile} from "../profile/profile.js";
import type {Comparison, Samples} from "./summary.js";

export type BenchmarkOptions = {
    emulation: AttentionEmulationOptions | AttentionProfile,

    /** How many tokens are in the context when decoding is measured. */
    depths: readonly number[],

    /** Lengths of prompts. */
    prefill: readonly number[],
    rounds: number,

    /** Tokens per block of decoding. */
    decodeTokens: number,

    /**
     * - **`"wall"`** - time as it passes.
     * - **`"cpu"`** - time that the process computes, all threads together: for a machine that is busy with other things,
     * and for one thread, as threads that wait for each other compute too.
     */
    clock: "wall" | "cpu",
    signal?: AbortSignal,
    onProgress?: (text: string) => void
};

export type BenchmarkResult = {
    decode: Array<{depth: number} & Comparison>,
    prefill: Array<{tokens: number} & Comparison>,
    kernel: "fused" | "dense" | "none",

    /** Memory of the pattern, as the emulation's report has it. */
    extraMemoryBytes: number
};

/** The context that a benchmark needs: one token more, for the one that is decoded after each switch. */
export function requiredContextSize({depths, prefill, decodeTokens}: Pick<BenchmarkOptions, "depths" | "prefill" | "decodeTokens">): number {
    return Math.max(...depths.map((depth) => depth + decodeTokens), ...prefill) + 1;
}

/**
 * Measures the speed of a context with emulation and without it.
 *
 * Both are measured on the same context, in turns of a few seconds at most, since the speed of a machine changes all the
 * time: what they share cancels in the ratios of neighbours. "Off" is a disposed emulation, not one of strength 0. What a
 * switch costs is not counted: after it, a batch of a prompt is evaluated once untimed, as the operating system clears memory that
 * a switch allocated when it is first used. Before each turn, one token is decoded and not timed: it leaves the same graph behind,
 * so that no turn can use the last one's again and go ahead of the other.
 *
 * Calls through node-llama-cpp and the choice of the next token are a part of every time here, as they are for its users.
 * They took 0.2 ms per decoded token of a tiny model, and 2 % of the time of one of 360M parameters with 49,152 tokens.
 */
export async function measure(context: LlamaContext, options: BenchmarkOptions): Promise<BenchmarkResult> {
    const benchmark = new Benchmark(context, options);
    try {
        await benchmark.warmUp();

        const prefill: BenchmarkResult["prefill"] = [];
        for (const tokens of options.prefill)
            prefill.push({tokens, ...compare(tokens, await benchmark.measurePrefill(tokens))});

        const decode: BenchmarkResult["decode"] = [];
        for (const depth of options.depths)
            decode.push({depth, ...compare(1, await benchmark.measureDecode(depth))});

        return {decode, prefill, ...await benchmark.report()};
    } finally {
        benchmark.dispose();
    }
}

class Benchmark {
    private readonly sequence: LlamaContextSequence;
    private readonly tokens: Token[];
    private emulation: AttentionEmulation | undefined;

    constructor(private readonly context: LlamaContext, private readonly options: BenchmarkOptions) {
        this.sequence = context.getSequence();
        this.tokens = randomTokens(context.model, requiredContextSize(options));
    }

    /** Reads the weights from the disk, and brings the processor up to its speed. */
    async warmUp(): Promise<void> {
        this.options.onProgress?.("warming up");
        const length = Math.min(this.context.batchSize, Math.max(...this.options.prefill, 1), this.tokens.length - 1);
        for (const on of [false, true]) {
            await this.startTurn(on);
            await this.timePrefill(0, length);
            await this.shorten(0);
        }
    }

    /** Each batch of the prompt is evaluated with and without emulation before the next one is. */
    async measurePrefill(length: number): Promise<Samples[]> {
        const {batchSize} = this.context;
        const batches: Samples[] = Array.from({length: Math.ceil(length / batchSize)}, () => ({on: [], off: []}));
        for (let round = 0; round < this.options.rounds; round++) {
            this.progress(`prefill of ${length} tokens`, round);
            await this.shorten(0);
            for (const [index, samples] of batches.entries()) {
                const start = index * batchSize;
                const end = Math.min(start + batchSize, length);
                for (const on of (round + index) % 2 === 0 ? [false, true] : [true, false]) {
                    await this.shorten(start);
                    await this.startTurn(on, end);
                    samples[on ? "on" : "off"].push(await this.timePrefill(start, end));
                }
            }
        }
        return batches;
    }

    /**
     * A round is two blocks of each kind, in an order that cancels a steady drift: off, on, on, off, and the reverse next time.
     * Each token is timed, and compared with the same one of the neighbouring block.
     */
    async measureDecode(depth: number): Promise<Samples[]> {
        await this.shorten(0);
        if (depth > 0) {
            this.options.onProgress?.(`filling the context with ${depth} tokens`);
            await this.timePrefill(0, depth);
        }

        const samples: Samples = {on: [], off: []};
        for (let round = 0; round < this.options.rounds; round++) {
            this.progress(`decoding at ${depth} tokens`, round);
            for (const on of round % 2 === 0 ? [false, true, true, false] : [true, false, false, true]) {
                await this.startTurn(on);
                for (let i = 0; i < this.options.decodeTokens; i++)
                    samples[on ? "on" : "off"].push(await this.time(() => this.decode(depth + i)));
                await this.shorten(depth);
            }
        }
        return [samples];
    }

    async report(): Promise<Pick<BenchmarkResult, "kernel" | "extraMemoryBytes">> {
        await this.startTurn(true);
        const report = this.emulation?.report();
        return {kernel: report?.kernel ?? "none", extraMemoryBytes: report?.patternBytes ?? 0};
    }

    dispose(): void {
        this.emulation?.dispose();
    }

    /** Turns emulation on or off, if so evaluates the batch up to `batchEnd`, and decodes a token: all of it untimed. */
    private async startTurn(on: boolean, batchEnd?: number): Promise<void> {
        this.options.signal?.throwIfAborted();
        const length = this.sequence.nextTokenIndex;
        if (on !== (this.emulation != null)) {
            this.emulation?.dispose();
            this.emulation = on ? emulateAttention(this.context, this.options.emulation) : undefined;
            if (batchEnd != null)
                await this.timePrefill(length, batchEnd);
            await this.shorten(length);
        }

        await this.decode(length);
        await this.shorten(length);
    }

    private async timePrefill(start: number, end: number): Promise<number> {
        return await this.time(() => this.sequence.evaluateWithoutGeneratingNewTokens(this.tokens.slice(start, end)));
    }

    /** Decodes one token and chooses the likeliest next one, as text generation does; but goes on with given tokens. */
    private async decode(index: number): Promise<void> {
        const token = this.tokens[index]!;
        await this.sequence.controlledEvaluate([[token, {generateNext: {token: true, options: {temperature: 0}}}]]);
    }

    private async shorten(length: number): Promise<void> {
        await this.sequence.eraseContextTokenRanges([{start: length, end: this.sequence.nextTokenIndex}]);
    }

    /** @returns seconds */
    private async time(action: () => Promise<void>): Promise<number> {
        const start = this.now();
        await action();
        return this.now() - start;
    }

    private now(): number {
        if (this.options.clock === "wall")
            return performance.now() / 1000;

        const {user, system} = process.cpuUsage();
        return (user + system) / 1e6;
    }

    private progress(what: string, round: number): void {
        this.options.onProgress?.(`${what}, round ${round + 1} of ${this.options.rounds}`);
    }
}

/** Ids are taken as they are, so a model needs no tokenizer that works. */
function randomTokens(model: LlamaModel, length: number): Token[] {
    const candidates = [...model.iterateAllTokens()].filter((token) => !model.isSpecialToken(token) && !model.isEogToken(token));
    const random = seededRandom(1);
    return Array.from({length}, () => candidates[Math.floor(random() * candidates.length)]!);
}
