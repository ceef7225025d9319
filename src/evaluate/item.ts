/** What all kinds of items have. */
type Item = {
    /** of its own within the data */
    id: string,

    /** Items of one subject are alike, so it is whole subjects that the bootstrap draws. */
    subject: string,

    /** subjects that are reported together, such as STEM */
    group?: string
};

/** A multiple-choice question. */
export type ChoiceItem = Item & {
    question: string,
    options: string[],

    /** index of the right option */
    answer: number
};

/** A question whose answer is read from what the model writes, with a regular expression. */
export type FreeFormItem = Item & {
    question: string,

    /** `undefined`: whatever the pattern finds is right */
    answer: string | undefined,

    /** what it matches last is the model's answer: its first group, or all where it has none */
    pattern: string
};

/** A text whose tokens are to be foretold. */
export type TextItem = Item & {
    text: string
};

/** A row of a data file that is no item. */
export type BadRow = {
    file: string,
    line: number,
    problem: string
};

/** What was read from data files. */
export type Data<T extends Item = Item> = {
    items: T[],
    badRows: BadRow[],

    /** the files that it came from, labels included */
    files: string[]
};

/** Something is wrong with the data as a whole: said in one sentence. */
export class DataError extends Error {
    override name = "DataError";
}

/** The letter of an option. */
export function letterOf(option: number): string {
    return String.fromCharCode("A".charCodeAt(0) + option);
}

/** So many options have letters. */
export const maxOptions = 26;
