import {letterOf} from "./item.js";

/*
 * How an answer is read from what a model wrote. Only what stands behind the last heading counts: "Response:", or "Answer:"
 * where there is no "Response:". A heading with nothing behind it doesn't count, and markdown's asterisks and the like are
 * passed over. The first of these rules that finds something decides; where none does, or it finds no option, or several, the
 * answer is unreadable:
 *
 * 1. \boxed{B}
 * 2. The text of an option and nothing else in the first line: "the hall". Not where it is a letter only.
 * 3. A letter at the beginning, in brackets or not, perhaps behind the word "option": "B", "(B)", "B. the hall", "Option B".
 *    A lower-case letter only if there is nothing else, and "A" and "I" before a word only if that says that they are a letter.
 * 4. "the answer is B", "I choose option B" and the like, unless it is said that it is not.
 *
 * A letter is an option's. Behind it may be another letter, or a denial, which make it unreadable, unless they are the option's text:
 * "(B) not at all".
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
    const texts = options?.map(plain);
    return readBoxed(statement, texts) ?? readOptionText(statement, texts) ?? readLeadingLetter(statement, texts) ??
        readSentence(statement, texts);
}

/** What stands behind the last heading, without marks that only format it. */
function findStatement(text: string): string {
    for (const heading of headings) {
        const statements = text.split(heading).slice(1).map((part) => withoutMarks(part).trim());
        const statement = statements.findLast((part) => part !== "");
        if (statement != null)
            return statement;
    }
    return "";
}

function withoutMarks(text: string): string {
    return text.replace(/[*_`#>"'“”‘’$]+/g, "");
}

/** A text as texts are compared. */
function plain(text: string): string {
    return withoutMarks(text).trim().toLowerCase().replace(/[.\s]+$/, "");
}

type Texts = readonly string[] | undefined;

function isOption(letter: string, texts: Texts): boolean {
    return texts == null || letter < letterOf(texts.length);
}

function readBoxed(statement: string, texts: Texts): string | undefined {
    const boxed = /\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Z])\)?\s*\}/g;
    const letters = new Set(Array.from(statement.matchAll(boxed), ([, letter]) => letter!));
    const letter = onlyOf(letters);
    return letter != null && isOption(letter, texts)
        ? letter
        : undefined;
}

function readOptionText(statement: string, texts: Texts = []): string | undefined {
    const said = plain(statement.split("\n", 1)[0]!);
    const same = texts.flatMap((text, index) => text === said && !/^[a-z]$/.test(text) ? [letterOf(index)] : []);
    return onlyOf(new Set(same));
}

function readLeadingLetter(statement: string, texts: Texts): string | undefined {
    const alone = /^[([]?([a-z])[)\].]?$/.exec(statement)?.[1]?.toUpperCase();
    if (alone != null)
        return isOption(alone, texts)
            ? alone
            : undefined;

    const match = /^(?:(?:[Oo]ption|[Cc]hoice)\s+)?[([]?\s*([A-Z])(?![\p{L}\p{N}_'’])/u.exec(statement);
    if (match == null)
        return undefined;

    const rest = statement.slice(match[0].length);
    const denied = /^[^.\n]{0,20}(?:\b(?:not|wrong|incorrect|false)\b|n['’]?t\b)/i.test(rest);
    return readLetter(match[1]!, {bare: match[0].length === 1, rest, denied}, texts);
}

function readSentence(statement: string, texts: Texts): string | undefined {
    const firstLine = statement.split("\n", 1)[0]!;
    const match =
        /\b(?:answer|option|choice|choose|select|pick)\b((?:(?!\b[A-Z]\b)[^\n])*?)([([]?)\b([A-Z])(?![\p{L}\p{N}_'’])/u.exec(firstLine);
    if (match == null || /\bnot\b|n['’]?t\b/i.test(match[1]!))
        return undefined;
    const rest = firstLine.slice(match.index + match[0].length);
    return readLetter(match[3]!, {bare: match[2] === "", rest, denied: false}, texts);
}

/**
 * @param behind - `bare`: no bracket or word says that this is a letter and not a word; `rest`: what follows it; `denied`: that it
 * is not the answer
 */
function readLetter(
    letter: string, {bare, rest, denied}: {bare: boolean, rest: string, denied: boolean}, texts: Texts
): string | undefined {
    if (!isOption(letter, texts))
        return undefined;
    const text = texts?.[letter.charCodeAt(0) - 65];
    if (text != null && beginsWith(rest, text))
        return letter;

    // "A hall", "I think": words, unless what follows says otherwise
    const isWord = bare && /^[AI]$/.test(letter) && /^ +\p{Ll}/u.test(rest) &&
        !/^ +(?:is|as|because|since|for|which|that|or|and)\b/i.test(rest);
    return denied || isWord || namesAnother(rest)
        ? undefined
        : letter;
}

/** Whether an option's text follows its letter. */
function beginsWith(rest: string, text: string): boolean {
    const said = rest.replace(/^[)\].:,\s–—-]+/, "").toLowerCase();
    return text !== "" && said.startsWith(text) && !/^[\p{L}\p{N}_]/u.test(said.slice(text.length));
}

const joint = /^[)\]]? *(?:[,/&–-]|or\b|and\b)[,/&–\- ]*(?:or\b|and\b)? *(?:[Oo]ption +)?/;
const anotherLetter = /^[([]?(?:[A-Z]|[a-z](?=[)\].]*\s*$))[)\]]?(?![\p{L}\p{N}_'’])/u;

/** "A or B", "A, B", "A and (B)" choose nothing. */
function namesAnother(rest: string): boolean {
    const joined = joint.exec(rest)?.[0];
    return joined != null && anotherLetter.test(rest.slice(joined.length)) && !/^[)\]]? *, *I\b/.test(rest);
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
    return a.toLowerCase() === b.toLowerCase() || (isNumber.test(a) && isNumber.test(b) && digitsOf(a) === digitsOf(b));
}

/** Without what makes no difference: a number of JavaScript would hold no more than 15 digits. */
function digitsOf(number: string): string {
    const [whole = "", part = ""] = number.replace(/[-+,]/g, "").split(".");
    const digits = `${whole.replace(/^0+/, "")}.${part.replace(/0+$/, "")}`;
    return number.startsWith("-") && digits !== "."
        ? `-${digits}`
        : digits;
}
