import {maxOptions} from "../item.js";
import {baseName, collectRows, listDataFiles, optionalTextField, parseObject, readLines, RowError, textField} from "./files.js";
import type {ChoiceItem, Data} from "../item.js";

/**
 * Multiple choice in JSONL, for data of one's own; a line is
 * `{"question": "...", "options": ["...", "..."], "answer": ...}`, where the answer is an option's text, its letter (A is the
 * first one) or its index (0 is the first one). `"id"`, `"subject"` and `"group"` are optional; the subject is the file's name
 * where there is none.
 */
export async function readChoice(fileOrFolder: string): Promise<Data<ChoiceItem>> {
    const files = await listDataFiles(fileOrFolder, [".jsonl"]);
    const read = await Promise.all(files.map(async (file) => {
        return collectRows(file, await readLines(file), (line): ChoiceItem => {
            const row = parseObject(line);
            const options = optionsOf(row.options);
            return {
                id: optionalTextField(row, "id") ?? `${baseName(file)}:${line.number}`,
                subject: optionalTextField(row, "subject") ?? baseName(file),
                group: optionalTextField(row, "group"),
                question: textField(row, "question"),
                options,
                answer: answerOf(row.answer, options)
            };
        });
    }));
    return {items: read.flatMap(({rows}) => rows), badRows: read.flatMap(({badRows}) => badRows), files};
}

function optionsOf(value: unknown): string[] {
    if (!Array.isArray(value) || value.length < 2 || value.length > maxOptions || !value.every((option) => typeof option === "string"))
        throw new RowError(`the field "options" must be an array of 2 to ${maxOptions} texts`);
    if (value.some((option) => option.trim() === ""))
        throw new RowError("an option is empty");
    return value;
}

function answerOf(value: unknown, options: readonly string[]): number {
    const byText = options.indexOf(value as string);
    const byLetter = typeof value === "string" && /^[A-Z]$/.test(value)
        ? value.charCodeAt(0) - "A".charCodeAt(0)
        : -1;
    const answer = typeof value === "number"
        ? value
        : byText >= 0
            ? byText
            : byLetter;
    if (!Number.isInteger(answer) || answer < 0 || answer >= options.length)
        throw new RowError(
            `the field "answer" is ${JSON.stringify(value) ?? "missing"}, but must be the text, the letter or the index of one of ${options.length} options`
        );
    return answer;
}
