import fs from "node:fs/promises";
import path from "node:path";
import {DataError} from "../item.js";
import {baseName, collectRows, isFolder, parseObject, readLines, RowError, textField} from "./files.js";
import type {ChoiceItem, Data} from "../item.js";

/** PIQA as published: `valid.jsonl` with goal, sol1 and sol2, and beside it `valid-labels.lst` with a 0 or 1 for each line. */
export async function readPiqa(fileOrFolder: string): Promise<Data<ChoiceItem>> {
    return await readLabelled(fileOrFolder, "piqa", ["0", "1"], (row) => ({
        question: textField(row, "goal"),
        options: ["sol1", "sol2"].map((field) => textField(row, field))
    }));
}

/** Social IQa as published: `dev.jsonl` with context, question and answerA to answerC, and `dev-labels.lst` with 1, 2 or 3. */
export async function readSocialIqa(fileOrFolder: string): Promise<Data<ChoiceItem>> {
    return await readLabelled(fileOrFolder, "social-iqa", ["1", "2", "3"], (row) => ({
        question: `${textField(row, "context")} ${textField(row, "question")}`,
        options: ["answerA", "answerB", "answerC"].map((field) => textField(row, field))
    }));
}

/** @param labels - what the file of labels calls the first option, the second, and so on */
async function readLabelled(
    fileOrFolder: string, subject: string, labels: readonly string[],
    make: (row: Record<string, unknown>) => Pick<ChoiceItem, "question" | "options">
): Promise<Data<ChoiceItem>> {
    const file = await findLabelled(fileOrFolder);
    const labelFile = labelFileOf(file);
    const answers = (await readLines(labelFile)).map(({text}) => text.trim());
    const lines = await readLines(file);
    if (lines.length !== answers.length)
        throw new DataError(`${file} has ${lines.length} rows, but ${labelFile} has ${answers.length} labels; each row must have one`);

    const places = new Map(lines.map((line, index) => [line, index]));
    const {rows, badRows} = collectRows(file, lines, (line): ChoiceItem => {
        const item = make(parseObject(line));
        const label = answers[places.get(line)!]!;
        const answer = labels.indexOf(label);
        if (answer < 0)
            throw new RowError(`the label in ${path.basename(labelFile)} is ${label}, but must be ${labels.join(" or ")}`);
        return {id: `${baseName(file)}:${line.number}`, subject, ...item, answer};
    });
    return {items: rows, badRows, files: [file, labelFile]};
}

function labelFileOf(file: string): string {
    return `${file.replace(/\.jsonl$/, "")}-labels.lst`;
}

/** Of a folder: the split that has labels and isn't for training. */
async function findLabelled(fileOrFolder: string): Promise<string> {
    if (!await isFolder(fileOrFolder))
        return fileOrFolder;

    const names = await fs.readdir(fileOrFolder);
    const labelled = names.filter((name) => name.endsWith(".jsonl") && names.includes(labelFileOf(name))).sort();
    const held = labelled.filter((name) => !name.startsWith("train"));
    const [only, ...more] = held.length > 0
        ? held
        : labelled;
    if (only == null)
        throw new DataError(`${fileOrFolder} has no NAME.jsonl with its labels in NAME-labels.lst`);
    if (more.length > 0)
        throw new DataError(`${fileOrFolder} has several files with labels (${[only, ...more].join(", ")}); name one of them`);
    return path.join(fileOrFolder, only);
}
