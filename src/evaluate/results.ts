import fs from "node:fs/promises";
import path from "node:path";
import {shortHash} from "./hash.js";
import type {AttentionEmulationOptions} from "../emulation/options.js";
import type {AttentionProfile} from "../profile/profile.js";
import type {TaskName, Way} from "./tasks.js";

/** All that decides what comes out of a run. A stopped run goes on only with the same. */
export type RunSettings = {
    /** version of reattend */
    reattend: string,
    task: TaskName,
    way: Way | null,

    /** whether prompts go through the model's chat template */
    template: "own" | "none",
    model: {file: string, sha256: string},
    data: Array<{file: string, sha256: string}>,

    /** how many examples are shown before each question, and the files that they are from */
    shots: number,
    examples: Array<{file: string, sha256: string}>,
    limit: number | null,
    seed: number,
    sequences: number,

    /** the most that a sequence may hold; `null`: what the model was trained on */
    contextSize: number | null,

    /** of generated answers */
    maxTokens: number | null,

    /** of texts, in tokens */
    window: number | null,

    /** for free-form answers */
    pattern: string | null,

    /** of the keys and of the values in the KV cache */
    cacheTypeK: string,
    cacheTypeV: string,
    flashAttention: boolean,
    arms: Array<{name: string, emulation: AttentionEmulationOptions | AttentionProfile | null}>
};

/** What every line of results.jsonl has, the hashes included that say what it is a result of. */
type ResultBase = {
    item: string,
    arm: string,
    subject: string,
    group?: string,

    /** hash of the tokens that the model was given */
    prompt: string,
    data: string,
    model: string,

    /** hash of the settings as a whole */
    options: string
};

export type ChoiceResult = ResultBase & {
    /** how many options there are */
    choices: number,

    /** index of the right option */
    answer: number,

    /** index of the option with the largest log-likelihood, and with the largest per character */
    chosen: number,
    chosenNormalized: number,
    logLikelihoods: number[],

    /** how many tokens went through the model */
    tokens: number
};

export type GenerationResult = ResultBase & {
    /** how many options there are, if it is a choice */
    choices?: number,
    answer: string | null,

    /** what was read from the text; `null`: nothing could be */
    chosen: string | null,
    right: boolean,
    text: string,

    /** how many tokens were generated */
    tokens: number,
    stopReason: "end" | "length"
};

export type TextResult = ResultBase & {
    /** how many tokens were scored */
    tokens: number,
    loss: number,
    divergence: number,
    divergences: number[],
    sameTop: number
};

export type Result = ChoiceResult | GenerationResult | TextResult;

/** A folder can't be used for a run, or not for this one: said in one sentence. */
export class FolderError extends Error {
    override name = "FolderError";
}

/** The folder of a run: run.json has its settings, results.jsonl a line for each item and arm. */
export class ResultFolder {
    private readonly results = new Map<string, Result>();
    private isBegun = false;

    private constructor(readonly path: string, readonly settings: RunSettings) {
    }

    /**
     * Begins a run in a folder, or goes on with the one that was begun there.
     * @throws {FolderError} if the folder has other things in it, or the run has other settings
     */
    static async open(folder: string, settings: RunSettings): Promise<ResultFolder> {
        const results = new ResultFolder(folder, settings);
        try {
            await fs.mkdir(folder, {recursive: true});
        } catch (error) {
            throw new FolderError(`cannot make the folder ${folder}: ${(error as Error).message}`, {cause: error});
        }

        const before = await readJson(results.settingsFile);
        if (before != null) {
            results.checkSettings(before as RunSettings);
            await results.load();
            results.isBegun = true;
        } else if ((await fs.readdir(folder)).length > 0)
            throw new FolderError(`${folder} has other things in it, and no run to go on with; name a new folder with --output`);
        return results;
    }

    has(item: string, arm: string): boolean {
        return this.results.has(keyOf(item, arm));
    }

    get(item: string, arm: string): Result | undefined {
        return this.results.get(keyOf(item, arm));
    }

    get size(): number {
        return this.results.size;
    }

    /** Writes lines for results that the folder doesn't have. */
    async add(results: readonly Result[]): Promise<void> {
        const missing = results.filter(({item, arm}) => !this.has(item, arm));
        if (missing.length === 0)
            return;
        // not before there are results: a run that can't be done leaves nothing behind
        if (!this.isBegun)
            await this.begin();
        this.isBegun = true;
        await fs.appendFile(this.file, missing.map((result) => `${JSON.stringify(result)}\n`).join(""));
        for (const result of missing)
            this.results.set(keyOf(result.item, result.arm), result);
    }

    private async begin(): Promise<void> {
        try {
            await fs.writeFile(this.settingsFile, `${JSON.stringify(this.settings, undefined, 4)}\n`, {flag: "wx"});
        } catch (error) {
            if ((error as NodeJS.ErrnoException).code === "EEXIST")
                throw new FolderError(`another run has begun in ${this.path} meanwhile; name a new folder with --output`, {cause: error});
            throw error;
        }
    }

    private get settingsFile(): string {
        return path.join(this.path, "run.json");
    }

    private get file(): string {
        return path.join(this.path, "results.jsonl");
    }

    private checkSettings(before: RunSettings): void {
        for (const name of Object.keys(this.settings) as Array<keyof RunSettings>) {
            const [was, is] = [before[name], this.settings[name]].map((value) => JSON.stringify(value));
            if (was !== is)
                throw new FolderError(
                    `${this.path} holds a run with another setting: ${name} was ${was ?? "not there"} and is ${is ?? "not there"} now; ` +
                    "run the same command again to go on with it, or name another folder with --output"
                );
        }
    }

    /** A process that was killed may leave half a line at the end: it is cut off. */
    private async load(): Promise<void> {
        let text: string;
        try {
            text = await fs.readFile(this.file, "utf8");
        } catch (error) {
            if ((error as NodeJS.ErrnoException).code === "ENOENT")
                return;
            throw error;
        }

        const whole = text.slice(0, text.lastIndexOf("\n") + 1);
        if (whole.length < text.length)
            await fs.truncate(this.file, Buffer.byteLength(whole));

        const options = shortHash(this.settings);
        for (const [index, line] of whole.split("\n").slice(0, -1).entries()) {
            const result = parseLine(line);
            if (result == null || result.options !== options)
                throw new FolderError(`${this.file}, line ${index + 1} is no result of this run; mend it, or name another folder with --output`);
            this.results.set(keyOf(result.item, result.arm), result);
        }
    }
}

function keyOf(item: string, arm: string): string {
    return JSON.stringify([item, arm]);
}

function parseLine(line: string): Result | undefined {
    try {
        return JSON.parse(line) as Result;
    } catch {
        return undefined;
    }
}

async function readJson(file: string): Promise<unknown> {
    let text: string;
    try {
        text = await fs.readFile(file, "utf8");
    } catch (error) {
        const {code, message} = error as NodeJS.ErrnoException;
        if (code === "ENOENT")
            return undefined;
        throw new FolderError(`cannot read ${file}: ${message}`, {cause: error});
    }
    try {
        return JSON.parse(text) as unknown;
    } catch (error) {
        throw new FolderError(`${file} is damaged: ${(error as Error).message}`, {cause: error});
    }
}
