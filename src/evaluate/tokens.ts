import {LlamaText} from "node-llama-cpp";
import type {LlamaModel, Token} from "node-llama-cpp";

/** The tokens of a text that stands at the beginning, where most models want a token that says so. */
export function tokenizeFromStart(model: LlamaModel, parts: ReadonlyArray<string | LlamaText>): Token[] {
    const tokens = LlamaText([...parts]).tokenize(model.tokenizer);
    const {bos, shouldPrependBosToken} = model.tokens;
    return shouldPrependBosToken && bos != null && tokens[0] !== bos
        ? [bos, ...tokens]
        : tokens;
}

/** How many tokens two sequences have in common at their beginnings. */
export function commonLength(a: readonly Token[], b: readonly Token[]): number {
    let length = 0;
    while (length < a.length && length < b.length && a[length] === b[length])
        length++;
    return length;
}
