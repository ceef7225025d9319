import fs from "node:fs/promises";
import path from "node:path";
import {parse} from "csv-parse/sync";
import {DataError} from "../item.js";
import {isFolder, listDataFiles, readText} from "./files.js";
import {groupOf} from "./mmluGroups.js";
import type {BadRow, ChoiceItem, Data} from "../item.js";

const columns = ["question", "A", "B", "C", "D", "answer"] as const;

/**
 * MMLU, one CSV file for each subject, named after it: `philosophy_test.csv`. Columns are question, A, B, C, D, answer, as
 * published without a header; with one (question, A, B, C, D, answer in any order, other columns too) it goes by the names.
 *
 * Of a folder, only files of the test split are taken where there are any, be it in a folder `test` inside.
 */
export async function readMmlu(fileOrFolder: string): Promise<Data<ChoiceItem>> {
    const files = await listSplit(fileOrFolder);
    const subjects = await Promise.all(files.map(readSubject));
    return {items: subjects.flatMap(({items}) => items), badRows: subjects.flatMap(({badRows}) => badRows), files};
}

async function listSplit(fileOrFolder: string): Promise<string[]> {
    if (!await isFolder(fileOrFolder))
        return [fileOrFolder];

    const files = await listDataFiles(fileOrFolder, [".csv"])
        .catch(async (error: unknown) => {
            const inside = path.join(fileOrFolder, "test");
            if (error instanceof DataError && await isFolder(inside).catch(() => false))
                return await listDataFiles(inside, [".csv"]);
            throw error;
        });
    const test = files.filter((file) => file.endsWith("_test.csv"));
    return test.length > 0
        ? test
        : files;
}

/** The examples of a subject are in `philosophy_dev.csv`, beside its file or, as published, in a folder `dev` beside the file's folder. */
export async function mmluExampleFile(file: string): Promise<string> {
    const name = `${subjectOf(file)}_dev.csv`;
    const folder = path.dirname(file);
    const places = [path.join(folder, name), path.join(folder, "..", "dev", name)];
    for (const place of places) {
        if (await fs.stat(place).then(() => true, () => false))
            return place;
    }
    throw new DataError(`the examples for ${file} are missing: there is neither ${places.join(" nor ")}`);
}

function subjectOf(file: string): string {
    return path.basename(file, ".csv").replace(/_(test|val|dev)$/, "");
}

type Row = {record: string[], line: number};

async function readSubject(file: string): Promise<{items: ChoiceItem[], badRows: BadRow[]}> {
    const subject = subjectOf(file);
    const group = groupOf(subject);
    const rows = parseRows(file, await readText(file));

    const header = headerOf(rows[0]?.record);
    const order = header ?? columns.map((_, index) => index);
    const items: ChoiceItem[] = [];
    const badRows: BadRow[] = [];
    for (const {record, line} of header == null ? rows : rows.slice(1)) {
        // spaces at the ends of options stay: lm-evaluation-harness counts them, too
        const [question = "", ...rest] = order.map((index) => record[index] ?? "");
        const answer = rest.pop()!.trim();
        const right = ["A", "B", "C", "D"].indexOf(answer);
        const problem = (header == null && record.length !== columns.length && `${record.length} columns instead of ${columns.length}`) ||
            (question.trim() === "" && "the question is empty") ||
            (rest.some((option) => option.trim() === "") && "an option is empty") ||
            (right < 0 && `the answer is ${JSON.stringify(answer)}, but must be A, B, C or D`);
        if (problem !== false)
            badRows.push({file, line, problem});
        else
            items.push({id: `${subject}:${line}`, subject, group, question, options: rest, answer: right});
    }
    return {items, badRows};
}

/** Rows with the line that each begins in: a question may go over several. */
function parseRows(file: string, text: string): Row[] {
    let line = 1;
    try {
        const parsed = parse(text, {bom: true, info: true, relax_column_count: true, relax_quotes: true, record_delimiter: ["\r\n", "\n", "\r"]}) as
            unknown as Array<{record: string[], info: {lines: number}}>;
        return parsed
            .map(({record, info}) => {
                const row = {record, line};
                line = info.lines + 1;
                return row;
            })
            .filter(({record}) => record.some((field) => field.trim() !== ""));
    } catch (error) {
        // a quotation mark that is never closed swallows the rest of the file, so nothing of it can be trusted
        throw new DataError(`${file} is no CSV file: ${(error as Error).message}`, {cause: error});
    }
}

/** Where each column is; `undefined` where the first row is no header. */
function headerOf(record: readonly string[] = []): number[] | undefined {
    const names = record.map((name) => name.trim().toLowerCase());
    const places = columns.map((name) => names.indexOf(name.toLowerCase()));
    return places.every((place) => place >= 0) && record[places[1]!]!.trim().length === 1
        ? places
        : undefined;
}
