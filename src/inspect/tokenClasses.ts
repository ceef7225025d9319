import type {LlamaModel, Token} from "node-llama-cpp";

/** Classes of tokens, in the order of {@link CapturedAttention.classMass}. */
export const tokenClasses = ["special", "space", "punctuation", "word"] as const;

/**
 * What kind of text a token is.
 * - **`"special"`** - a control token, such as the beginning of a text, or one without text
 * - **`"space"`** - spaces and line breaks only
 * - **`"punctuation"`** - punctuation and symbols, with spaces or without
 * - **`"word"`** - anything else: words, parts of them, numbers
 */
export type TokenClass = typeof tokenClasses[number];

const ofModels = new WeakMap<LlamaModel, Uint8Array>();

/** The class of each token of a model's vocabulary, as an index into {@link tokenClasses}. Computed once for each model. */
export function classesOfVocabulary(model: LlamaModel): Uint8Array {
    let classes = ofModels.get(model);
    if (classes == null) {
        const found: number[] = [];
        for (const token of model.iterateAllTokens())
            found[token] = tokenClasses.indexOf(classify(model, token));
        classes = Uint8Array.from(found);
        ofModels.set(model, classes);
    }
    return classes;
}

/**
 * The class of a token.
 * @example
 * const token = context.model.tokenize("yes,").at(-1);
 * console.log(classOfToken(context.model, token)); // punctuation
 */
export function classOfToken(model: LlamaModel, token: Token): TokenClass {
    return tokenClasses[classesOfVocabulary(model)[token] ?? -1] ?? "special";
}

function classify(model: LlamaModel, token: Token): TokenClass {
    const {control, unknown, unused} = model.getTokenAttributes(token);
    if (control || unknown || unused)
        return "special";
    // some tokenizers leave out a text's first space
    return classOfText(model.detokenize([token]) || model.detokenize([token, token]));
}

/** @internal */
export function classOfText(text: string): TokenClass {
    if (text === "")
        return "special";
    if (/^\s+$/u.test(text))
        return "space";
    if (/^[\p{P}\p{S}\s]+$/u.test(text) && !text.includes("\ufffd"))
        return "punctuation";
    return "word";
}
