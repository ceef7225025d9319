import {readAnswer, readFreeForm} from "./answer.js";
import {checkArms, underArm} from "./arms.js";
import {createEvaluationContext} from "./context.js";
import {openReply} from "./conversation.js";
import {generateGreedily, preparePrompt} from "./generate.js";
import {shortHash} from "./hash.js";
import {DataError, letterOf} from "./item.js";
import {checkScores, groupChoices, longestSequence, scoreChoices, slotsFor} from "./logLikelihood.js";
import {cutIntoWindows, scoreWindow} from "./perplexity.js";
import {prepareItem} from "./prepareItem.js";
import {analysisOpening, freeFormPrompt} from "./prompts.js";
import type {ChatWrapper, LlamaContext, LlamaModel} from "node-llama-cpp";
import type {Arm} from "./arms.js";
import type {Examples} from "./examples.js";
import type {ChoiceItem, FreeFormItem, TextItem} from "./item.js";
import type {ChoiceResult, GenerationResult, Result, ResultFolder, TextResult} from "./results.js";
import type {ChoiceTask, Way} from "./tasks.js";

export type EvaluationOptions = {
    model: LlamaModel,
    folder: ResultFolder,

    /** the first one is the plain model */
    arms: readonly Arm[],

    /** `undefined`: no chat template */
    chatWrapper: ChatWrapper | undefined,
    threads?: number,
    signal?: AbortSignal,
    onProgress?: (progress: Progress) => void
};

export type Progress = {
    arm: string,

    /** results that there are, and that there will be */
    done: number,
    all: number,

    /** results that were there before */
    before: number
};

/** An item that can't be evaluated, and why. */
export type LeftOut = {item: string, reason: string};

export type Evaluation<T extends Result = Result> = {
    /** of each arm, in the order of the items: the same items for all arms */
    results: Map<string, T[]>,
    leftOut: LeftOut[]
};

/** Arms are switched after so many groups: each switch builds a new graph. */
const groupsPerTurn = 4;

/** Which option is the likeliest one, of equal ones the first: `acc` of lm-evaluation-harness. */
export function likeliest(logLikelihoods: readonly number[]): number {
    return logLikelihoods.indexOf(Math.max(...logLikelihoods));
}

/** The same with log-likelihoods divided by the lengths of the options in characters: its `acc_norm`. */
export function likeliestNormalized(logLikelihoods: readonly number[], options: readonly string[]): number {
    return likeliest(logLikelihoods.map((logLikelihood, option) => logLikelihood / Array.from(options[option]!).length));
}

/** Multiple choice by log-likelihoods. */
export async function evaluateChoices(
    items: readonly ChoiceItem[],
    {task, way, examples}: {task: ChoiceTask, way: Exclude<Way, "generation">, examples: Examples},
    options: EvaluationOptions
): Promise<Evaluation<ChoiceResult>> {
    const {model, folder, chatWrapper, signal} = options;
    const prepared = items.map((item) => prepareItem(item, {model, task, way, chatWrapper, examples: examples.of(item)}));
    const {fitting, leftOut} = leaveOutLong(prepared, longestSequence, options);

    const sequences = Math.max(folder.settings.sequences, ...fitting.map(slotsFor));
    await using context = await createEvaluationContext(model, {
        length: Math.max(1, ...fitting.map(longestSequence)), sequences, threads: options.threads,
        flashAttention: folder.settings.flashAttention
    });
    const groups = groupChoices(fitting, sequences);
    await inTurns(context, groups, options, async (group, arm) => {
        const scores = await scoreChoices(context, group, {signal});
        checkScores(group, scores);
        return group.map(({item, optionTexts, prefix}, index): ChoiceResult => ({
            ...baseOf(item, arm, Uint32Array.from(prefix), folder),
            choices: item.options.length,
            answer: item.answer,
            chosen: likeliest(scores[index]!.logLikelihoods),
            chosenNormalized: likeliestNormalized(scores[index]!.logLikelihoods, optionTexts),
            ...scores[index]!
        }));
    });
    return collect(fitting, leftOut, options);
}

/** Questions whose answers the model writes. */
export async function evaluateGenerations(
    items: ReadonlyArray<ChoiceItem | FreeFormItem>, task: ChoiceTask | undefined, options: EvaluationOptions
): Promise<Evaluation<GenerationResult>> {
    const {model, folder, chatWrapper, signal} = options;
    const maxTokens = folder.settings.maxTokens!;
    const prepared = items.map((item) => {
        const message = "options" in item
            ? task!.question(item)
            : freeFormPrompt(item);
        return {item, ...preparePrompt(model, openReply(message, {separator: analysisOpening, chatWrapper}))};
    });
    // the answer needs room, too: at least a quarter of what it may have
    const {fitting, leftOut} = leaveOutLong(prepared, ({tokens}) => tokens.length + Math.ceil(maxTokens / 4), options);

    const longest = Math.max(1, ...fitting.map(({tokens}) => tokens.length + maxTokens));
    const {sequences, flashAttention} = folder.settings;
    await using context = await createEvaluationContext(model, {
        length: Math.min(longest, limitOf(options)), sequences, threads: options.threads, flashAttention
    });
    const groups = Array.from({length: Math.ceil(fitting.length / sequences)}, (_, index) => (
        fitting.slice(index * sequences, (index + 1) * sequences)
    ));
    await inTurns(context, groups, options, async (group, arm) => {
        const generations = await generateGreedily(context, group, {maxTokens, signal});
        return group.map(({item, tokens}, index): GenerationResult => {
            const {text, ...rest} = generations[index]!;
            // without a template the heading is part of the prompt
            const reply = chatWrapper == null ? `Analysis:${text}` : text;
            return {...baseOf(item, arm, Uint32Array.from(tokens), folder), ...markReply(item, reply), text, ...rest};
        });
    });
    return collect(fitting, leftOut, options);
}

/** How well texts are foretold. */
export async function evaluateTexts(
    texts: readonly TextItem[], options: EvaluationOptions
): Promise<Evaluation<TextResult> & {droppedTokens: number}> {
    const {model, folder, arms, signal} = options;
    const length = folder.settings.window!;
    if (length > limitOf(options))
        throw new DataError(`the window of ${length} tokens is longer than the model's context of ${limitOf(options)}; see --window`);

    const {windows, droppedTokens} = cutIntoWindows(model, texts, length);
    const chosen = folder.settings.limit == null
        ? windows
        : windows.slice(0, folder.settings.limit);
    await using context = await createEvaluationContext(model, {
        length, sequences: arms.length, threads: options.threads, flashAttention: folder.settings.flashAttention
    });
    checkArms(context, arms);

    const progress = trackProgress(chosen.length, options);
    for (const window of chosen) {
        signal?.throwIfAborted();
        if (arms.every(({name}) => folder.has(window.id, name)))
            continue;
        const scores = await scoreWindow(context, window, arms, signal);
        await folder.add(arms.map(({name}, arm): TextResult => {
            const {count, ...score} = scores[arm]!;
            return {...baseOf(window, name, Uint32Array.from(window.tokens), folder), tokens: count, ...score};
        }));
        progress("all arms");
    }
    return {...collect(chosen.map((item) => ({item})), [], options), droppedTokens};
}

/** What is read from a reply, and whether it is right. */
function markReply(item: ChoiceItem | FreeFormItem, reply: string): Pick<GenerationResult, "choices" | "answer" | "chosen" | "right"> {
    if ("options" in item) {
        const answer = letterOf(item.answer);
        const chosen = readAnswer(reply, item.options) ?? null;
        return {choices: item.options.length, answer, chosen, right: chosen === answer};
    }
    const {found, right} = readFreeForm(reply, item.pattern, item.answer);
    return {answer: item.answer ?? null, chosen: found ?? null, right};
}

/**
 * Has all groups evaluated under all arms, some groups at a time, so that all arms get about as far. A group is always
 * evaluated as a whole, also where some of its results are there already: they come out the same then.
 */
async function inTurns<T extends {item: {id: string}}>(
    context: LlamaContext, groups: readonly T[][], options: EvaluationOptions,
    evaluate: (group: T[], arm: string) => Promise<Result[]>
): Promise<void> {
    const {arms, folder, signal} = options;
    checkArms(context, arms);
    const progress = trackProgress(groups.flat().length, options);
    for (let start = 0; start < groups.length; start += groupsPerTurn) {
        const turn = groups.slice(start, start + groupsPerTurn);
        for (const arm of arms) {
            const open = turn.filter((group) => group.some(({item}) => !folder.has(item.id, arm.name)));
            await underArm(context, arm, async () => {
                for (const group of open) {
                    signal?.throwIfAborted();
                    await folder.add(await evaluate(group, arm.name));
                    progress(arm.name);
                }
            });
        }
    }
}

function trackProgress(items: number, {arms, folder, onProgress}: EvaluationOptions): (arm: string) => void {
    const before = folder.size;
    return (arm) => onProgress?.({arm, done: folder.size, all: items * arms.length, before});
}

function baseOf(item: {id: string, subject: string, group?: string}, arm: string, prompt: Uint32Array, {settings}: ResultFolder) {
    return {
        item: item.id,
        arm,
        subject: item.subject,
        group: item.group,
        prompt: shortHash(prompt),
        data: shortHash(settings.data),
        model: settings.model.sha256.slice(0, 16),
        options: shortHash(settings)
    };
}

function limitOf({model, folder}: EvaluationOptions): number {
    return Math.min(folder.settings.contextSize ?? Infinity, model.trainContextSize);
}

function leaveOutLong<T extends {item: {id: string}}>(
    prepared: readonly T[], lengthOf: (one: T) => number, options: EvaluationOptions
): {fitting: T[], leftOut: LeftOut[]} {
    const limit = limitOf(options);
    const tooLong = prepared.filter((one) => lengthOf(one) > limit);
    return {
        fitting: prepared.filter((one) => lengthOf(one) <= limit),
        leftOut: tooLong.map((one) => ({item: one.item.id, reason: `needs ${lengthOf(one)} tokens of context, but there are ${limit}`}))
    };
}

function collect<T extends Result>(
    fitting: ReadonlyArray<{item: {id: string}}>, leftOut: LeftOut[], {arms, folder}: EvaluationOptions
): Evaluation<T> {
    const results = new Map(arms.map(({name}) => [name, fitting.map(({item}) => folder.get(item.id, name) as T)]));
    return {results, leftOut};
}
