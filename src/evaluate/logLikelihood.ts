import {Slots} from "./Slots.js";
import {DataError} from "./item.js";
import {commonLength, tokenizeFromStart} from "./tokens.js";
import type {LlamaContext, LlamaModel, LlamaText, Token} from "node-llama-cpp";

/** A prompt and the texts that may follow it, as tokens. */
export type PreparedChoice = {
    /** what all options begin with */
    prefix: Token[],
    options: Array<{
        /** the rest of prompt and option */
        tokens: Token[],

        /** the first token that belongs to the option; those before it are evaluated, but don't count */
        scoredFrom: number
    }>
};

export type ChoiceScore = {
    /** of each option: the natural logarithm of its probability after the prompt */
    logLikelihoods: number[],

    /** how many tokens went through the model */
    tokens: number
};

/**
 * Cuts a prompt with each of its options into tokens, as lm-evaluation-harness does: both together, so that a word that is
 * part of both becomes the tokens that it would be in a text; spaces at the prompt's end count as the options' beginning.
 * @throws {Error} if there is no token to begin with
 */
export function prepareChoice(model: LlamaModel, prompt: string | LlamaText, options: readonly string[]): PreparedChoice {
    const [context, spaces] = splitEnd(prompt);
    const promptTokens = tokenizeFromStart(model, [context]);
    const whole = options.map((option) => tokenizeFromStart(model, [context, spaces + option]));

    const scoredFrom = whole.map((tokens) => Math.min(commonLength(promptTokens, tokens), tokens.length - 1));
    const shared = Math.min(...scoredFrom, ...whole.map((tokens) => commonLength(whole[0]!, tokens)));
    if (shared < 1)
        throw new Error("the prompt is empty, and the model has no token to begin a text with");

    return {
        prefix: whole[0]!.slice(0, shared),
        options: whole.map((tokens, index) => ({tokens: tokens.slice(shared), scoredFrom: scoredFrom[index]! - shared}))
    };
}

/** How many tokens a slot must hold for it. */
export function longestSequence({prefix, options}: PreparedChoice): number {
    return prefix.length + Math.max(...options.map(({tokens}) => tokens.length));
}

/** How many slots it takes: one for each option, and only one where every option is a single token. */
export function slotsFor({options}: PreparedChoice): number {
    return options.every(({tokens}) => tokens.length === 1)
        ? 1
        : options.length;
}

/** Divides choices into groups that are evaluated side by side in so many slots. The order stays. */
export function groupChoices<T extends PreparedChoice>(choices: readonly T[], slots: number): T[][] {
    const groups: T[][] = [];
    let free = 0;
    for (const choice of choices) {
        const needed = slotsFor(choice);
        if (needed > slots)
            throw new RangeError(`A choice of ${needed} options needs as many sequences, but the context has ${slots}`);
        if (needed > free) {
            groups.push([]);
            free = slots;
        }
        groups.at(-1)!.push(choice);
        free -= needed;
    }
    return groups;
}

/**
 * The log-likelihoods of the options of choices, under whatever emulation the context has. The prefix of a choice is evaluated
 * once and its options side by side, as are the choices of a group ({@link groupChoices}). What all prefixes of a group begin with
 * is evaluated once, too, if it is long.
 *
 * The same choices in the same order give the same numbers, to the last bit.
 * @param context - for this only: its sequences must not be in use
 */
export async function scoreChoices(
    context: LlamaContext, choices: readonly PreparedChoice[],
    {signal, onScore}: {signal?: AbortSignal, onScore?: (score: ChoiceScore, index: number) => void} = {}
): Promise<ChoiceScore[]> {
    const slots = new Slots(context);
    const scores: ChoiceScore[] = [];
    for (const group of groupChoices(choices, context.totalSequences)) {
        signal?.throwIfAborted();
        for (const score of await scoreGroup(slots, group)) {
            scores.push(score);
            onScore?.(score, scores.length - 1);
        }
    }
    return scores;
}

/**
 * Such scores would look like wrong answers.
 * @throws {DataError} naming the question at which the model gives no numbers
 */
export function checkScores(choices: ReadonlyArray<{item: {id: string}}>, scores: readonly ChoiceScore[]): void {
    const broken = scores.findIndex(({logLikelihoods}) => logLikelihoods.some(Number.isNaN));
    if (broken >= 0)
        throw new DataError(`the model's logits are not numbers at the question ${choices[broken]!.item.id}`);
}

/** What prompts begin with alike is evaluated once only if it is so many tokens: less isn't worth a batch of its own. */
const leastShared = 64;

/** How many tokens of all prompts, such as examples, are evaluated once; none is left without a token of its own. */
function sharedLength([first, ...others]: ReadonlyArray<readonly Token[]>): number {
    if (first == null || others.length === 0)
        return 0;
    const length = Math.min(first.length - 1, ...others.map((prefix) => Math.min(commonLength(first, prefix), prefix.length - 1)));
    return length < leastShared
        ? 0
        : length;
}

async function scoreGroup(slots: Slots, group: readonly PreparedChoice[]): Promise<ChoiceScore[]> {
    let used = 0;
    const places = group.map((choice) => {
        const own = Array.from({length: slotsFor(choice)}, (_, index) => used + index);
        used += own.length;
        return {...choice, slots: own};
    });

    const shared = sharedLength(places.map(({prefix}) => prefix));
    try {
        if (shared > 0) {
            const [{prefix, slots: [first]}, ...others] = places as [typeof places[number], ...typeof places];
            await slots.evaluate(first!, 0, prefix.slice(0, shared), [], () => undefined);
            await slots.copy(first!, others.map(({slots: [slot]}) => slot!));
        }

        const firstTokens = await Promise.all(places.map(async ({prefix, options, slots: [slot]}) => {
            const firsts = Uint32Array.from(options, ({tokens}) => tokens[0]!);
            const own = prefix.slice(shared);
            const [logProbabilities] = await slots.evaluate(slot!, shared, own, [own.length - 1], (logits, row) => (
                logits.getLogProbabilities(row, firsts)
            ));
            return logProbabilities!;
        }));

        for (const {slots: [first, ...others]} of places)
            await slots.copy(first!, others);

        return await Promise.all(places.map(async ({prefix, options, slots: own}, place) => {
            const logLikelihoods = await Promise.all(options.map(async ({tokens, scoredFrom}, option) => {
                const first = scoredFrom === 0
                    ? firstTokens[place]![option]!
                    : 0;
                // each token tells the probability of the next
                const rows = Array.from(tokens.keys()).slice(Math.max(scoredFrom - 1, 0), -1);
                const rest = rows.length === 0
                    ? []
                    : await slots.evaluate(own[option]!, prefix.length, tokens.slice(0, -1), rows, (logits, row, index) => (
                        logits.getLogProbabilities(row, Uint32Array.of(tokens[index + 1]!))[0]!
                    ));
                return rest.reduce((sum, logProbability) => sum + logProbability, first);
            }));
            const ownPrefix = prefix.length - (place === 0 ? 0 : shared);
            const evaluated = options.reduce((sum, {tokens}) => sum + tokens.length - 1, ownPrefix);
            return {logLikelihoods, tokens: evaluated};
        }));
    } finally {
        slots.clear(Array.from({length: used}, (_, slot) => slot));
    }
}

/** A text and the spaces at its end. */
function splitEnd(prompt: string | LlamaText): [text: string | LlamaText, spaces: string] {
    if (typeof prompt !== "string")
        return [prompt, ""];

    const text = prompt.trimEnd();
    return [text, prompt.slice(text.length)];
}
