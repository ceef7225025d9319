import {letterOf} from "./item.js";

/*
 * How an answer is read from what a model wrote. Only what stands behind the last heading counts: "Response:", or "Answer:"
 * where there is no "Response:". A heading with nothing behind it doesn't count, and markdown's asterisks and the like are
 * passed over. The first of these rules that finds something decides; where none does, or it finds no option, or several, the
 * answer is unreadable:
 *
 * 1. \boxed{B}
 * 2. A letter at the beginning, in brackets or not, perhaps behind the word "option": "B", "(B)", "B. the hall", "Option B".
 *    A lower-case letter only if there is nothing else, and "A" and "I" before a word only if that says that they are a letter.
 * 3. The text of an option and nothing else: "the hall".
 * 4. "the answer is B", "I choose option B" and the like, unless it is said that it is not.
 */

const headings = [/\bresponse[\s*_]*:/gi, /\banswer[\s*_]*:/gi];

/**
 * Reads which option a text chooses, by rules that do not ask which one is right. `undefined` where the text does not say so
 * plainly; that counts as a wrong answer, and is counted.
 * @param options - the options' texts, if they are known
 * @example
 * readAnswer("Analysis: Ann is in the hall. So hall (B).\nResponse: B"); // "B"
 * readAnswer("**Response:** (C) the hall"); // "C"
 * readAnswer("Response: the hall.", ["the attic", "the hall"]); // "B"
 * readAnswer("Response: A or B"); // undefined
 * readAnswer("Response: Because"); // undefined: a word, not a letter
 */
export function readAnswer(text: string, options?: readonly string[]): string | undefined {
    const statement = findStatement(text);
    const letter = readBoxed(statement) ?? readLeadingLetter(statement, options) ??
        readOptionText(statement, options) ?? readSentence(statement);
    return letter != null && (options == null || letter < letterOf(options.length))
        ? letter
        : undefined;
}

/** What stands behind the last heading, without marks that only format it. */
function findStatement(text: string): string {
    for (const heading of headings) {
        const statements = text.split(heading).slice(1).map((part) => part.replace(/[*_`#>"'“”‘’$]+/g, "").trim());
        const statement = statements.findLast((part) => part !== "");
        if (statement != null)
            return statement;
    }
    return "";
}

function readBoxed(statement: string): string | undefined {
    const letters = new Set(Array.from(statement.matchAll(/\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Z])\)?\s*\}/g), ([, letter]) => letter));
    return onlyOf(letters);
}

function readLeadingLetter(statement: string, options: readonly string[] | undefined): string | undefined {
    const alone = /^[([]?([a-z])[)\].]?$/.exec(statement)?.[1];
    if (alone != null)
        return alone.toUpperCase();

    const match = /^(?:(?:option|choice)\s+)?([([]\s*)?([A-Z])(?![\w'’])/i.exec(statement);
    const letter = match?.[2];
    if (match == null || letter == null || letter !== letter.toUpperCase())
        return undefined;

    const rest = statement.slice(match[0].length);
    if (namesAnother(rest) || /^[^.\n]{0,20}(?:\b(?:not|wrong|incorrect|false)\b|n['’]?t\b)/i.test(rest))
        return undefined;

    // "A hall", "I think": words, unless what follows says otherwise
    const bare = match[0] === letter;
    const isWord = bare && /^[AI]$/.test(letter) && /^ +[a-z]/i.test(rest) &&
        !/^ +(?:is|as|because|since|for|which|that)\b/i.test(rest) &&
        !rest.trim().toLowerCase().startsWith(options?.[letter.charCodeAt(0) - 65]?.toLowerCase() ?? "\n");
    return isWord
        ? undefined
        : letter;
}

/** "A or B", "A, B", "A and (B)" choose nothing. */
function namesAnother(rest: string): boolean {
    return /^[)\]]?\s*(?:[,/&–-]|or\b|and\b)+\s*(?:option\s+)?[([]?[A-Z][)\]]?(?![\w'’])/i.test(rest) &&
        !/^[)\]]?\s*,\s*I\b/.test(rest);
}

function readOptionText(statement: string, options: readonly string[] = []): string | undefined {
    const plain = (text: string) => text.trim().toLowerCase().replace(/[.\s]+$/, "");
    const [firstLine = ""] = statement.split("\n");
    const same = options.flatMap((option, index) => plain(option) === plain(firstLine) ? [letterOf(index)] : []);
    return onlyOf(new Set(same));
}

function readSentence(statement: string): string | undefined {
    const [firstLine = ""] = statement.split("\n");
    const match = /\b(?:answer|option|choice|choose|select|pick)\b((?:(?!\b[A-Z]\b)[^\n])*?)[([]?\b([A-Z])\b(?!['’])/.exec(firstLine);
    if (match == null || /\bnot\b|n['’]?t\b/i.test(match[1]!))
        return undefined;
    return namesAnother(firstLine.slice(match.index + match[0].length))
        ? undefined
        : match[2];
}

function onlyOf<T>(values: ReadonlySet<T>): T | undefined {
    return values.size === 1
        ? values.values().next().value
        : undefined;
}

export type FreeFormReading = {
    /** what the pattern found, `undefined` where it found nothing */
    found: string | undefined,
    right: boolean
};

/**
 * Reads an answer with a regular expression: its last match, and of that the first group that took part, or all where it has no
 * groups. It is right if it is the expected text, but for capitals and space around it, or the same number.
 * @param expected - `undefined`: whatever is found is right
 * @example
 * readFreeForm("... so 17 + 25 = 42.", "= (\\d+)", "42"); // {found: "42", right: true}
 * readFreeForm("It costs 1,200.0 in all.", "([\\d.,]+) in all", "1200"); // {found: "1,200.0", right: true}
 */
export function readFreeForm(text: string, pattern: string, expected: string | undefined): FreeFormReading {
    const last = Array.from(text.matchAll(new RegExp(pattern, "gu"))).at(-1);
    if (last == null)
        return {found: undefined, right: false};

    const found = (last.slice(1).find((group) => group != null) ?? last[0]).trim();
    return {found, right: expected == null || isSame(found, expected.trim())};
}

/** Commas part thousands, and nothing else: 1,5 may be one and a half. */
const isNumber = /^[-+]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?$/;

function isSame(a: string, b: string): boolean {
    const [first, second] = [a, b].map((text) => isNumber.test(text) ? Number(text.replaceAll(",", "")) : NaN);
    return a.toLowerCase() === b.toLowerCase() || first === second;
}
