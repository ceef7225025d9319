import fs from "node:fs";
import {createRequire} from "node:module";
import path from "node:path";
import process from "node:process";
import Table from "cli-table3";
import {DataError} from "../evaluate/item.js";
import {longestSequence} from "../evaluate/logLikelihood.js";
import {prepareItem} from "../evaluate/prepareItem.js";
import {chooseEvenly} from "../evaluate/questions.js";
import {checkIds, taskOf, tasks} from "../evaluate/tasks.js";
import {patterns} from "../emulation/options.js";
import {emulateAttention} from "../index.js";
import {saveProfile} from "../profile/profile.js";
import {ScoreFile, ScoreFileError} from "../tune/ScoreFile.js";
import {BudgetError} from "../tune/search.js";
import {checkSplits, split, tune} from "../tune/tune.js";
import {exitCode, Failure, UsageError} from "./failure.js";
import {hashFiles, hashModel} from "./hashes.js";
import {abortOnInterrupt} from "./interruption.js";
import {chatWrapperFor, openModelOnly} from "./model.js";
import {startProgress} from "./progress.js";
import {note, print, printJson, wrap} from "./terminal.js";
import type {LlamaModel} from "../index.js";
import type {AttentionProfile} from "../profile/profile.js";
import type {AttentionShape} from "../emulation/shape.js";
import type {ChoiceTask, TaskName} from "../evaluate/tasks.js";
import type {Setting} from "../tune/candidates.js";
import type {Comparison, TuneResult} from "../tune/tune.js";
import type {ModelFlags} from "./flags.js";

export type TuneFlags = ModelFlags & {
    task: string,
    data?: string,
    output: string,
    way?: "letter" | "text",
    template?: "own" | "none",
    patterns: string,
    sourceLayer: number,
    budget?: string,
    confirm: number,
    limit?: number,
    seed: number,
    sequences: number,
    json?: boolean
};

type Budget = {items: number} | {seconds: number};

type Report = {
    profile: string | null,
    beatsPlain: boolean,
    setting: Setting | null,
    training: Comparison | null,
    confirmation: Comparison | null,
    search: Omit<TuneResult["search"], "best"> & {budget: number},
    found: Found
};

type Found = NonNullable<AttentionProfile["found"]>;

const {version} = createRequire(import.meta.url)("../../package.json") as {version: string};

/** times the items to train on */
const defaultBudget = 40;

const secondsOf: Record<string, number> = {s: 1, m: 60, h: 3600};

/** Such as 5000, which is items, or 90s, 10m or 2h. */
function parseBudget(text: string): Budget {
    const [, number, unit] = /^(\d+)([smh]?)$/.exec(text) ?? [];
    if (number == null || Number(number) === 0 || !Number.isSafeInteger(Number(number)))
        throw new UsageError(`--budget is "${text}"; allowed are a number of items, like 5000, and a time, like 90s, 10m or 2h`);
    return unit === ""
        ? {items: Number(number)}
        : {seconds: Number(number) * secondsOf[unit!]!};
}

function parsePatterns(text: string): Array<Setting["pattern"]> {
    const names = text.split(",").map((name) => name.trim());
    const unknown = names.find((name) => !(patterns as readonly string[]).includes(name));
    if (unknown != null)
        throw new UsageError(`--patterns has "${unknown}"; allowed are ${patterns.join(", ")}`);
    return [...new Set(names)] as Array<Setting["pattern"]>;
}

export async function runTune(flags: TuneFlags): Promise<void> {
    const signal = abortOnInterrupt();
    try {
        const report = await runSearch(flags, signal);
        if (flags.json)
            printJson(report);
        else
            print(layOut(report));
    } catch (error) {
        if (signal.aborted) {
            note("Stopped; the same command again goes on from here.");
            process.exitCode = exitCode.interrupted;
            return;
        }
        throw error instanceof DataError || error instanceof ScoreFileError
            ? new Failure(error.message, {cause: error})
            : error instanceof BudgetError
                ? new UsageError(`--budget: ${error.message}`, {cause: error})
                : error;
    }
}

async function runSearch(flags: TuneFlags, signal: AbortSignal): Promise<Report> {
    const {task, way, data: dataPath} = chooseTask(flags);
    const allowed = parsePatterns(flags.patterns);
    const givenBudget = flags.budget == null
        ? undefined
        : parseBudget(flags.budget);
    if (fs.existsSync(flags.output))
        throw new UsageError(`--output ${flags.output} is there already; name another file, or remove it`);
    if (!fs.existsSync(path.dirname(path.resolve(flags.output))))
        throw new UsageError(`--output ${flags.output} is in a folder that does not exist`);

    const data = await task.read(dataPath);
    if (data.badRows.length > 0)
        note(`${data.badRows.length} rows are no items, such as line ${data.badRows[0]!.line} of ${data.badRows[0]!.file}: ${data.badRows[0]!.problem}`);
    checkIds(data.items);
    const chosen = flags.limit == null || flags.limit >= data.items.length
        ? data.items
        : chooseEvenly(data.items, ({subject}) => subject, flags.limit, flags.seed);

    await using opened = await openModelOnly(flags);
    const {model} = opened;
    const template = chooseTemplate(flags, task);
    const chatWrapper = template === "own"
        ? chatWrapperFor(model, flags.model)
        : undefined;
    const limit = Math.min(flags.contextSize ?? Infinity, model.trainContextSize);
    const prepared = chosen.map((item) => prepareItem(item, {model, task, way, chatWrapper}));
    const fitting = prepared.filter((item) => longestSequence(item) <= limit);
    if (fitting.length < prepared.length)
        note(`${prepared.length - fitting.length} items are longer than the context of ${limit} tokens, and are left out`);
    const splits = split(fitting, flags.confirm, flags.seed);
    checkSplits(splits);
    const budget = givenBudget ?? {items: defaultBudget * splits.training.length};

    const files = await hashFiles(data.files, signal);
    const identity = await identify(model, flags);
    const run = {
        reattend: version, task: flags.task, way, template, data: files,
        model: {file: path.basename(flags.model), sha256: await hashModel(flags.model, signal)},
        patterns: allowed, sourceLayer: flags.sourceLayer, budget, confirm: flags.confirm, limit: flags.limit ?? null,
        seed: flags.seed, sequences: flags.sequences, contextSize: flags.contextSize ?? null,
        cacheTypeK: flags.cacheTypeK, cacheTypeV: flags.cacheTypeV, flashAttention: flags.flashAttention
    };
    const file = ScoreFile.open(`${flags.output}.scores.jsonl`, run);
    if (file.size > 0)
        note(`Going on with the run whose scores are in ${flags.output}.scores.jsonl`);

    const progress = startProgress("tuning");
    const start = performance.now();
    let before: number | undefined;
    const result = await tune({
        ...flags, patterns: allowed, budget, model, splits, way, file, signal, shape: identity.shape,
        onProgress: ({stage, done, all}) => {
            before ??= done;
            const seconds = (performance.now() - start) / 1000 / Math.max(1, done - before) * (all - done);
            progress.text = `${stage}: ${done} of at most ${all} items` +
                (done > before && done < all ? `, at most ${Math.ceil(seconds / 60)} min left` : "");
        }
    }).catch((error: unknown) => {
        if (error instanceof BudgetError) // nothing was scored
            file.remove();
        throw error;
    }).finally(() => progress.stop());

    const {best, ...searched} = result.search;
    const found: Found = {
        by: `reattend ${version} tune`,
        run: {...run, budget: result.budget},
        splits: {training: splits.training.length, confirmation: splits.confirmation.length},
        training: result.training, confirmation: result.confirmation
    };
    if (result.confirmed)
        await saveProfile(flags.output, {...identity.profile, options: best!.setting, found});
    file.remove();
    return {
        profile: result.confirmed ? flags.output : null,
        beatsPlain: result.confirmed,
        setting: best?.setting ?? null,
        training: result.training ?? null,
        confirmation: result.confirmation ?? null,
        search: {...searched, budget: result.budget},
        found
    };
}

/** The model's shape and hash; and a source layer that it lacks is found out before anything is computed. */
async function identify(model: LlamaModel, flags: TuneFlags): Promise<{profile: AttentionProfile, shape: AttentionShape}> {
    await using context = await model.createContext({contextSize: 64, flashAttention: flags.flashAttention});
    try {
        const profile = emulateAttention(context, {sourceLayer: flags.sourceLayer, strength: 0}).createProfile();
        return {profile, shape: {layers: profile.model.layers, heads: profile.model.heads}};
    } catch (error) {
        throw error instanceof RangeError
            ? new UsageError(error.message.replace("sourceLayer", "--source-layer"), {cause: error})
            : error;
    }
}

function chooseTask(flags: TuneFlags): {task: ChoiceTask, way: "letter" | "text", data: string} {
    const choiceTasks = Object.entries(tasks).filter(([, {kind}]) => kind === "choice").map(([name]) => name);
    if (!choiceTasks.includes(flags.task))
        throw new UsageError(`--task is "${flags.task}"; allowed are ${choiceTasks.join(", ")}, as log-likelihoods of options are compared`);
    const task = taskOf(flags.task as TaskName) as ChoiceTask;
    const ways = task.ways.filter((way) => way !== "generation");
    const way = flags.way ?? ways[0]!;
    if (!ways.includes(way))
        throw new UsageError(`--way is "${way}"; allowed for the task ${flags.task} are ${ways.join(", ")}`);

    const data = flags.data ?? task.defaultData;
    if (data == null)
        throw new UsageError(`--data is missing: the file or folder with the data of the task ${flags.task}`);
    return {task, way, data};
}

function chooseTemplate({template, task: name}: TuneFlags, task: ChoiceTask): "own" | "none" {
    if (template === "none" && task.needsTemplate)
        throw new UsageError(`--template is "none"; the prompts of the task ${name} are made for the model's own`);
    return template ?? (task.needsTemplate ? "own" : "none");
}

function layOut({profile, beatsPlain, setting, training, confirmation, search, found}: Report): string {
    const {training: trained, confirmation: confirmed} = found.splits as {training: number, confirmation: number};
    const lines = [`${search.spent} items scored in ${search.stages.length} stages, ${trained} to train on and ${confirmed} to confirm with.`];
    if (setting == null || training == null || confirmation == null)
        return [...lines, wrap("No setting beats plain: on the items that were trained on, none was better than the model as it is. " +
            "No profile was written.", process.stdout)].join("\n");

    const table = new Table({
        head: ["", "plain", "tuned", "gain in log-likelihood, 95 %", "only plain right", "only tuned right", "p"],
        colAligns: ["left", "right", "right", "right", "right", "right", "right"],
        style: {head: [], border: []}
    });
    for (const [name, comparison] of [["training", training], ["confirmation", confirmation]] as const)
        table.push([
            name, percent(comparison.accuracy.plain), percent(comparison.accuracy.tuned),
            `${signed(comparison.logLikelihood.difference)} (${comparison.logLikelihood.interval.map(signed).join(" to ")})`,
            comparison.mcnemar.onlyPlain, comparison.mcnemar.onlyTuned, comparison.mcnemar.p.toFixed(3)
        ]);
    return [
        ...lines,
        `The best setting: ${describe(setting)}`,
        table.toString(),
        `The intervals are by bootstrap, which draws ${confirmation.logLikelihood.drawn.units === "subjects"
            ? `whole subjects, of which the confirmation has ${confirmation.logLikelihood.drawn.count}`
            : "items, as there are too few subjects to draw"}.`,
        wrap(beatsPlain
            ? `It beats plain on items that it was not chosen by. Written to ${profile}; use it with --profile.`
            : "No setting beats plain: the best of those that were tried, on the items that were trained on, is not better beyond chance " +
            "on the items kept for confirmation. No profile was written.", process.stdout)
    ].join("\n");
}

function describe({pattern, strength, threshold, schedule, normalize}: Setting): string {
    return `pattern ${pattern}, strength ${strength}, threshold ${threshold}, ` +
        `schedule ${typeof schedule === "string" ? schedule : JSON.stringify(schedule)}${normalize ? ", normalized" : ""}`;
}

function percent(share: number): string {
    return `${(100 * share).toFixed(1)} %`;
}

function signed(value: number): string {
    return `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(4)}`;
}
