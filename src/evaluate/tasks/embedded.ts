import {fileURLToPath} from "node:url";
import {letterOf} from "../item.js";
import {collectRows, listDataFiles, optionalTextField, parseObject, readLines, RowError, textField} from "./files.js";
import type {ChoiceItem, Data} from "../item.js";

export const embeddedQuestionsPath = fileURLToPath(new URL("../../../models/questions.jsonl", import.meta.url));

/** The embedded model's own unseen questions, or others of the same form: the question ends in its options, one a line. */
export async function readEmbedded(fileOrFolder: string): Promise<Data<ChoiceItem>> {
    const files = await listDataFiles(fileOrFolder, [".jsonl"]);
    const read = await Promise.all(files.map(async (file) => {
        return collectRows(file, await readLines(file), (line): ChoiceItem => {
            const row = parseObject(line);
            const question = textField(row, "question");
            const options = Array.isArray(row.options)
                ? row.options.map(String) // of sums they are numbers
                : [];
            const list = options.map((option, index) => `\n${letterOf(index)} ${option}`).join("");
            if (options.length < 2 || !question.endsWith(list))
                throw new RowError('the field "question" does not end in the texts of the field "options", each on a line with its letter');
            const answer = options.findIndex((_, index) => letterOf(index) === row.answer);
            if (answer < 0)
                throw new RowError(`the field "answer" is ${JSON.stringify(row.answer) ?? "missing"}, but must be the letter of an option`);
            return {
                id: textField(row, "id"), subject: textField(row, "family"), group: optionalTextField(row, "domain"),
                question, options, answer
            };
        });
    }));
    return {items: read.flatMap(({rows}) => rows), badRows: read.flatMap(({badRows}) => badRows), files};
}
