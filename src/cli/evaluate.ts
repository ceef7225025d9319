import fs from "node:fs/promises";
import {createRequire} from "node:module";
import path from "node:path";
import process from "node:process";
import Table from "cli-table3";
import {ArmError, armNames, isArmName, namedArms, plainArm} from "../evaluate/arms.js";
import {evaluateChoices, evaluateGenerations, evaluateTexts} from "../evaluate/evaluate.js";
import {noExamples, readExamples} from "../evaluate/examples.js";
import {DataError} from "../evaluate/item.js";
import {chooseEvenly} from "../evaluate/questions.js";
import {
    armTable, controlTable, divergenceTable, generationTable, notesFor, partTable, perplexityTable, renderMarkdown, subtitleOf, titleOf,
    titleOfReport, verdicts
} from "../evaluate/report.js";
import {FolderError, ResultFolder} from "../evaluate/results.js";
import {summarizeChoices, summarizeGenerations, summarizeTexts} from "../evaluate/summary.js";
import {checkIds, taskOf, tasks, ways} from "../evaluate/tasks.js";
import {renderHtmlPage} from "../htmlPage.js";
import {checkProfile, isProfile} from "../profile/profile.js";
import {decodeText, whyUnreadable} from "../textFile.js";
import {exitCode, Failure, UsageError} from "./failure.js";
import {hashFiles, hashModel} from "./hashes.js";
import {abortOnInterrupt} from "./interruption.js";
import {chatWrapperFor, openModelOnly} from "./model.js";
import {startProgress} from "./progress.js";
import {colorsFor, note, print, printJson, terminalWidth, wrap} from "./terminal.js";
import type {Arm} from "../evaluate/arms.js";
import type {EvaluationOptions, LeftOut, Progress} from "../evaluate/evaluate.js";
import type {Examples} from "../evaluate/examples.js";
import type {ChoiceItem, Data, FreeFormItem, TextItem} from "../evaluate/item.js";
import type {EvaluationReport} from "../evaluate/report.js";
import type {RunSettings} from "../evaluate/results.js";
import type {ChoiceTask, FreeFormTask, TaskName, TextTask, Way} from "../evaluate/tasks.js";
import type {AttentionEmulationOptions, AttentionProfile, LlamaModel} from "../index.js";
import type {EmulationFlags, ModelFlags} from "./flags.js";

export type EvaluateFlags = ModelFlags & Omit<EmulationFlags, "strength" | "pattern"> & {
    task: string,
    data?: string,
    output: string,
    arms: string,
    way?: string,
    template?: string,
    strength: number[],
    shots: number,
    shotsData?: string,
    limit?: number,
    seed: number,
    maxTokens: number,
    window: number,
    answerPattern?: string,
    sequences: number,
    json?: boolean
};

const {version} = createRequire(import.meta.url)("../../package.json") as {version: string};

/** So many bad rows are shown; the report names all. */
const shownBadRows = 10;

type AnyTask = ChoiceTask | FreeFormTask | TextTask;
type AnyData = Data<ChoiceItem | FreeFormItem | TextItem>;

export async function runEvaluate(flags: EvaluateFlags): Promise<void> {
    const signal = abortOnInterrupt();
    try {
        const report = await evaluate(flags, signal);
        if (flags.json)
            printJson(report);
        else
            print(layOut(report, flags.output));
    } catch (error) {
        if (signal.aborted) {
            note("Stopped; the same command again goes on from here.");
            process.exitCode = exitCode.interrupted;
            return;
        }
        throw error instanceof DataError || error instanceof FolderError
            ? new Failure(error.message, {cause: error})
            : error instanceof ArmError
                ? new UsageError(error.message, {cause: error})
                : error;
    }
}

async function evaluate(flags: EvaluateFlags, signal: AbortSignal): Promise<EvaluationReport> {
    const {name, task, way, data: dataPath} = chooseTask(flags);
    const arms = await makeArms(flags);
    const read = await readData(task, dataPath, flags);
    const examples = flags.shots === 0
        ? noExamples
        : await readExamples(task as ChoiceTask, {count: flags.shots, file: flags.shotsData, data: read as Data<ChoiceItem>});
    const data = {...read, badRows: [...read.badRows, ...examples.badRows]};
    reportBadRows(data);

    await using opened = await openModelOnly(flags);
    const {model} = opened;
    const template = chooseTemplate(flags, model, task, way);
    const folder = await ResultFolder.open(flags.output, {
        reattend: version,
        task: name,
        way: way ?? null,
        template,
        model: {file: path.basename(flags.model), sha256: await hashModel(flags.model, signal)},
        data: await hashFiles(data.files),
        shots: flags.shots,
        examples: await hashFiles(examples.files),
        limit: flags.limit ?? null,
        seed: flags.seed,
        sequences: flags.sequences,
        contextSize: flags.contextSize ?? null,
        maxTokens: way === "generation" ? flags.maxTokens : null,
        window: task.kind === "text" ? flags.window : null,
        pattern: flags.answerPattern ?? null,
        cacheTypeK: flags.cacheTypeK,
        cacheTypeV: flags.cacheTypeV,
        flashAttention: flags.flashAttention,
        arms: arms.map(({name, emulation}) => ({name, emulation: emulation ?? null}))
    });

    const chatWrapper = template === "own"
        ? chatWrapperFor(model, flags.model)
        : undefined;
    if (folder.size > 0)
        note(`Going on with the run in ${flags.output}: ${folder.size} results are there.`);
    using progress = startProgress("evaluating");
    const options: EvaluationOptions = {
        model, folder, arms, chatWrapper, threads: flags.threads, signal,
        onProgress: describeProgress((text) => {
            progress.text = text;
        })
    };
    const report = await runTask({task, way, data, examples}, flags, options);
    await writeReport(flags.output, report);
    return report;
}

async function runTask(
    {task, way, data, examples}: {task: AnyTask, way: Way | undefined, data: AnyData, examples: Examples},
    {limit, seed}: EvaluateFlags, options: EvaluationOptions
): Promise<EvaluationReport> {
    const base = {version: 1, settings: options.folder.settings, badRows: data.badRows} as const;
    if (task.kind === "text") {
        const {results, leftOut, droppedTokens} = await evaluateTexts(data.items as TextItem[], options);
        return {
            ...base, items: countOf(results, leftOut), metrics: [], perplexity: summarizeTexts(results, seed), droppedTokens, leftOut
        };
    }

    const items = choose(data.items as Array<ChoiceItem | FreeFormItem>, limit, seed);
    if (way === "generation") {
        const {results, leftOut} = await evaluateGenerations(items, task.kind === "choice" ? task : undefined, options);
        return {...base, items: countOf(results, leftOut), ...summarizeGenerations(results, seed), leftOut};
    }
    const {results, leftOut} = await evaluateChoices(
        items as ChoiceItem[], {task: task as ChoiceTask, way: way!, examples}, options
    );
    return {...base, items: countOf(results, leftOut), metrics: summarizeChoices(results, way!, seed), leftOut};
}

function countOf(results: ReadonlyMap<string, readonly unknown[]>, [leftOut]: readonly LeftOut[]): number {
    const [first] = results.values();
    if (first == null || first.length === 0)
        throw new DataError(leftOut == null
            ? "no item can be evaluated; of a text, two tokens at least are needed"
            : `no item can be evaluated; ${leftOut.item} ${leftOut.reason}`);
    return first.length;
}

/** In the order of the data. */
function choose<T extends {subject: string}>(items: readonly T[], limit: number | undefined, seed: number): readonly T[] {
    if (limit == null || limit >= items.length)
        return items;

    const chosen = new Set(chooseEvenly(items, ({subject}) => subject, limit, seed));
    return items.filter((item) => chosen.has(item));
}

function chooseTask(flags: EvaluateFlags): {name: TaskName, task: AnyTask, way: Way | undefined, data: string} {
    if (!Object.hasOwn(tasks, flags.task))
        throw new UsageError(`--task is "${flags.task}"; allowed are ${listOf(Object.keys(tasks))}`);
    const name = flags.task as TaskName;
    const task = taskOf(name);

    if (flags.way != null && !(ways as readonly string[]).includes(flags.way))
        throw new UsageError(`--way is "${flags.way}"; allowed are ${listOf(ways)}`);
    if (flags.way != null && !(task.ways as readonly string[]).includes(flags.way))
        throw new UsageError(
            `--way is "${flags.way}"; ${task.ways.length === 0 ? `the task ${name} has no ways` : `allowed for the task ${name} are ${listOf(task.ways)}`}`
        );
    if (flags.answerPattern != null && task.kind !== "free-form")
        throw new UsageError(`--answer-pattern is given, but is for the task free-form only, not for ${name}`);
    if (flags.template != null && task.kind === "text")
        throw new UsageError("--template is given, but texts are not in a chat template");

    const data = flags.data ?? (task.kind === "choice" ? task.defaultData : undefined);
    if (data == null)
        throw new UsageError(`--data is missing: the file or folder with the data of the task ${name}`);
    const way = flags.way as Way | undefined ?? task.ways[0];
    checkShots(flags, task, way);
    return {name, task, way, data};
}

function checkShots({shots, shotsData, task: name}: EvaluateFlags, task: AnyTask, way: Way | undefined): void {
    if (shots === 0) {
        if (shotsData != null)
            throw new UsageError("--shots-data is given, but --shots is 0");
        return;
    }
    if (task.kind !== "choice" || task.needsTemplate)
        throw new UsageError(`--shots is ${shots}, but the task ${name} is asked without examples; allowed is 0`);
    if (way === "generation")
        throw new UsageError(`--shots is ${shots}, but with --way generation questions are asked without examples; allowed is 0`);
    if (task.exampleFile != null && shotsData != null)
        throw new UsageError(`--shots-data is given, but the task ${name} has its examples in dev files beside the data`);
    if (task.exampleFile == null && shotsData == null)
        throw new UsageError(`--shots-data is missing: the file with the examples for the task ${name}`);
}

async function makeArms(flags: EvaluateFlags): Promise<Arm[]> {
    const method: AttentionEmulationOptions = {
        threshold: flags.threshold, sourceLayer: flags.sourceLayer, schedule: flags.schedule, normalize: flags.normalize ?? false,
        kernel: flags.kernel, seed: flags.patternSeed
    };
    const named = await Promise.all(flags.arms.split(",").map(async (text) => {
        const name = text.trim();
        if (isArmName(name))
            return namedArms(name, flags.strength, method);
        if (name.endsWith(".json"))
            return [{name: nameOfFile(name), emulation: await readEmulation(name)}];
        throw new UsageError(`--arms has "${name}"; allowed are ${listOf([...armNames, "a file that ends in .json"])}`);
    }));

    // what all others are compared with comes first
    const arms = [plainArm, ...named.flat().filter((arm) => arm !== plainArm)];
    const twice = arms.find(({name}, index) => arms.findIndex((arm) => arm.name === name) !== index);
    if (twice != null)
        throw new UsageError(`--arms and --strength make two arms of the name ${twice.name}`);
    return arms;
}

/** Not one of the names that say which pattern an arm has. */
function nameOfFile(file: string): string {
    const name = path.basename(file, ".json");
    return isArmName(name.split("@", 1)[0]!)
        ? path.basename(file)
        : name;
}

/** Options of `emulateAttention`, or a saved profile; whether the model allows them is found out later. */
async function readEmulation(file: string): Promise<AttentionEmulationOptions | AttentionProfile> {
    try {
        const emulation = JSON.parse(decodeText(await fs.readFile(file))) as AttentionEmulationOptions | AttentionProfile | null;
        if (emulation == null)
            throw new TypeError("it must be an object");
        if (isProfile(emulation))
            checkProfile(emulation, "it");
        return emulation;
    } catch (error) {
        throw new Failure(`cannot read the arm ${file}: ${whyUnreadable(error)}`, {cause: error});
    }
}

async function readData(task: AnyTask, file: string, {answerPattern}: EvaluateFlags): Promise<AnyData> {
    if (answerPattern != null)
        checkPattern(answerPattern);
    const data = await task.read(file, answerPattern);
    checkIds(data.items);
    if (data.items.length === 0)
        throw new DataError(`${file} has no items for this task; ${describeBadRows(data)}`);
    return data;
}

function checkPattern(pattern: string): void {
    try {
        new RegExp(pattern, "u");
    } catch (error) {
        throw new UsageError(`--answer-pattern is no regular expression: ${(error as Error).message}`, {cause: error});
    }
}

function reportBadRows(data: AnyData): void {
    if (data.badRows.length > 0)
        note(describeBadRows(data));
}

function describeBadRows({badRows}: AnyData): string {
    const places = badRows.slice(0, shownBadRows).map(({file, line, problem}) => `${file}, line ${line}: ${problem}`);
    const rest = badRows.length - places.length;
    return [
        `${badRows.length} ${badRows.length === 1 ? "row is" : "rows are"} no item, and left out:`, ...places,
        ...rest > 0 ? [`and ${rest} more, which the report names`] : []
    ].join("\n  ");
}

function chooseTemplate(
    {template}: EvaluateFlags, model: LlamaModel, task: AnyTask, way: Way | undefined
): RunSettings["template"] {
    if (template != null && template !== "own" && template !== "none")
        throw new UsageError(`--template is "${template}"; allowed are own and none`);
    const hasOwn = model.fileInfo.metadata.tokenizer.chat_template != null;
    if (template === "own" && !hasOwn)
        throw new UsageError("--template is \"own\", but the model's file has no chat template");
    if (template != null)
        return template;

    const wanted = way === "generation" || (task.kind === "choice" && task.needsTemplate === true);
    return hasOwn && wanted
        ? "own"
        : "none";
}

/** What is done, and how long the rest will take at the speed so far. */
function describeProgress(show: (text: string) => void): (progress: Progress) => void {
    const start = performance.now();
    return ({arm, done, all, before}) => {
        const seconds = (performance.now() - start) / 1000;
        const left = seconds / (done - before) * (all - done);
        show(`${arm}: ${done} of ${all} results, ${formatDuration(left)} left`);
    };
}

function formatDuration(seconds: number): string {
    const minutes = Math.floor(seconds / 60);
    return minutes >= 60
        ? `${Math.floor(minutes / 60)} h ${minutes % 60} min`
        : minutes > 0
            ? `${minutes} min ${Math.floor(seconds % 60)} s`
            : `${Math.ceil(seconds)} s`;
}

async function writeReport(folder: string, report: EvaluationReport): Promise<void> {
    await fs.writeFile(path.join(folder, "report.json"), `${JSON.stringify(report, undefined, 4)}\n`);
    await fs.writeFile(path.join(folder, "report.md"), renderMarkdown(report));
    await fs.writeFile(path.join(folder, "report.html"), await renderHtmlPage({
        page: "evaluate",
        title: titleOfReport(report),
        data: report,
        summary: [subtitleOf(report), ...verdicts(report)].join(" ")
    }));
}

function layOut(report: EvaluationReport, output: string): string {
    const {metrics, generation, perplexity, items, leftOut} = report;
    const colors = colorsFor(process.stdout);
    return [
        ...metrics.flatMap((metric) => [
            colors.bold(titleOf(metric)), table(armTable(metric.arms), leastImportant),
            ...metric.controls.length > 0
                ? [colors.bold("The pattern against its controls"), table(controlTable(metric.controls), leastImportant)]
                : [],
            ...metric.groups.length > 1 ? [table(turn(partTable(metric.groups)))] : []
        ]),
        ...generation == null ? [] : [colors.bold("What was written"), table(generationTable(generation))],
        ...perplexity == null ? [] : [colors.bold("Perplexity"), table(perplexityTable(perplexity))],
        ...perplexity == null || perplexity.length < 2 ? [] : [colors.bold("Divergence from plain"), table(divergenceTable(perplexity))],
        ...verdicts(report).map((verdict) => wrap(verdict, process.stdout)),
        ...notesFor(report).map((line) => colors.dim(wrap(line, process.stdout))),
        ...leftOut.length > 0 ? [`${leftOut.length} items could not be evaluated; the report names them.`] : [],
        `${items} items. Report: ${path.join(output, "report.html")}, report.md, report.json; results.jsonl has every answer.`
    ].join("\n");
}

/** Columns that a narrow terminal goes without, the first ones first; the sentences below and the report have them. */
const leastImportant = ["p", "smallest effect", "only arm / only plain", "only arm / only control", "right", "corrected"];

function table(rows: string[][], leaveOutFirst: readonly string[] = []): string {
    const laidOut = drawTable(rows);
    const width = terminalWidth(process.stdout) ?? Infinity;
    const column = rows[0]?.indexOf(leaveOutFirst[0] ?? "") ?? -1;
    if (laidOut.width <= width || leaveOutFirst.length === 0)
        return laidOut.toString();

    return table(column < 0 ? rows : rows.map((cells) => cells.toSpliced(column, 1)), leaveOutFirst.slice(1));
}

/** Rows as columns: there are more arms than groups. */
function turn(rows: string[][]): string[][] {
    return rows[0]?.map((_, column) => rows.map((cells) => cells[column] ?? "")) ?? [];
}

function drawTable([head = [], ...rows]: string[][]): Table.Table {
    const laidOut = new Table({head, colAligns: head.map((_, index) => index === 0 ? "left" : "right"), style: {head: [], border: []}});
    laidOut.push(...rows);
    return laidOut;
}

function listOf(names: readonly string[]): string {
    return names.length < 2
        ? names.join("")
        : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
