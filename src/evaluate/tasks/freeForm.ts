import {baseName, collectRows, listDataFiles, optionalTextField, parseObject, readLines, RowError, textField} from "./files.js";
import type {Data, FreeFormItem} from "../item.js";

/**
 * Questions with answers of any form, in JSONL; a line is `{"question": "...", "answer": "...", "pattern": "..."}`. The pattern
 * is a regular expression of JavaScript's: see {@link FreeFormItem.pattern}. `"id"`, `"subject"` and `"group"` are optional.
 * @param pattern - for lines that have none of their own
 */
export async function readFreeForm(fileOrFolder: string, pattern: string | undefined): Promise<Data<FreeFormItem>> {
    const files = await listDataFiles(fileOrFolder, [".jsonl"]);
    const read = await Promise.all(files.map(async (file) => {
        return collectRows(file, await readLines(file), (line): FreeFormItem => {
            const row = parseObject(line);
            const own = optionalTextField(row, "pattern") ?? pattern;
            if (own == null)
                throw new RowError('no field "pattern", and --answer-pattern is not given');
            checkPattern(own);
            return {
                id: optionalTextField(row, "id") ?? `${baseName(file)}:${line.number}`,
                subject: optionalTextField(row, "subject") ?? baseName(file),
                group: optionalTextField(row, "group"),
                question: textField(row, "question"),
                answer: typeof row.answer === "number"
                    ? String(row.answer)
                    : optionalTextField(row, "answer"),
                pattern: own
            };
        });
    }));
    return {items: read.flatMap(({rows}) => rows), badRows: read.flatMap(({badRows}) => badRows), files};
}

function checkPattern(pattern: string): void {
    try {
        new RegExp(pattern, "u");
    } catch (error) {
        throw new RowError(`the pattern is no regular expression: ${(error as Error).message}`, {cause: error});
    }
}
