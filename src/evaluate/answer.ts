/**
 * Reads which option a text chooses: the capital letter after its last "Response:", alone or with brackets, quotation marks,
 * asterisks or the word "option" before it. `undefined` where there is no such letter; that counts as a wrong answer.
 * @example
 * readAnswer("Analysis: Ann is in the hall. So hall (B).\nResponse: B"); // "B"
 * readAnswer("**Response:** (C) the hall"); // "C"
 * readAnswer("Response: Because"); // undefined: a word, not a letter
 */
export function readAnswer(text: string): string | undefined {
    const matches = [...text.matchAll(/\bresponse[\s*]*:[\s*"'“([]*(?:option\s+)?(\w+)/gi)];
    const chosen = matches.at(-1)?.[1];
    return chosen != null && /^[A-Z]$/.test(chosen)
        ? chosen
        : undefined;
}
