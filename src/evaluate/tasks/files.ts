import fs from "node:fs/promises";
import path from "node:path";
import {decodeText, whyUnreadable} from "../../textFile.js";
import {DataError} from "../item.js";
import type {BadRow} from "../item.js";

/** The files of a folder with one of these endings, sorted; a file is itself. */
export async function listDataFiles(fileOrFolder: string, endings: readonly string[]): Promise<string[]> {
    if (!await isFolder(fileOrFolder))
        return [fileOrFolder];

    const names = await fs.readdir(fileOrFolder);
    const files = names.filter((name) => endings.some((ending) => name.endsWith(ending))).sort();
    if (files.length === 0)
        throw new DataError(`${fileOrFolder} has no file that ends in ${endings.join(" or ")}`);
    return files.map((name) => path.join(fileOrFolder, name));
}

export async function isFolder(file: string): Promise<boolean> {
    try {
        return (await fs.stat(file)).isDirectory();
    } catch (error) {
        throw new DataError(`cannot read ${file}: ${reasonOf(error)}`, {cause: error});
    }
}

/** A file in UTF-8, without the mark that some programs begin it with. */
export async function readText(file: string): Promise<string> {
    try {
        return decodeText(await fs.readFile(file));
    } catch (error) {
        throw new DataError(`cannot read ${file}: ${reasonOf(error)}`, {cause: error});
    }
}

export type Line = {number: number, text: string};

/** The lines of a file that aren't empty. */
export async function readLines(file: string): Promise<Line[]> {
    return (await readText(file))
        .split(/\r?\n/)
        .map((text, index) => ({number: index + 1, text}))
        .filter(({text}) => text.trim() !== "");
}

/** A row can't be used: `collectRows` notes it with its place. */
export class RowError extends Error {}

/** Makes something of each line, and lists those that nothing could be made of. */
export function collectRows<T>(file: string, lines: readonly Line[], make: (line: Line) => T): {rows: T[], badRows: BadRow[]} {
    const rows: T[] = [];
    const badRows: BadRow[] = [];
    for (const line of lines) {
        try {
            rows.push(make(line));
        } catch (error) {
            if (!(error instanceof RowError))
                throw error;
            badRows.push({file, line: line.number, problem: error.message});
        }
    }
    return {rows, badRows};
}

export function parseObject({text}: Line): Record<string, unknown> {
    let value: unknown;
    try {
        value = JSON.parse(text);
    } catch (error) {
        throw new RowError(`not JSON: ${(error as Error).message}`, {cause: error});
    }
    if (value === null || typeof value !== "object" || Array.isArray(value))
        throw new RowError("not a JSON object");
    return value as Record<string, unknown>;
}

/** A field that must hold text. */
export function textField(row: Record<string, unknown>, field: string): string {
    const text = optionalTextField(row, field);
    if (text == null)
        throw new RowError(`no field "${field}"`);
    return text;
}

export function optionalTextField(row: Record<string, unknown>, field: string): string | undefined {
    const value = row[field];
    if (value == null)
        return undefined;
    if (typeof value !== "string")
        throw new RowError(`the field "${field}" is ${JSON.stringify(value)}, but must be text`);
    if (value.trim() === "")
        throw new RowError(`the field "${field}" is empty`);
    return value;
}

/** The name of a file, as a subject. */
export function baseName(file: string): string {
    return path.basename(file, path.extname(file));
}

function reasonOf(error: unknown): string {
    return (error as NodeJS.ErrnoException).code === "ENOENT"
        ? "there is no such file or folder"
        : whyUnreadable(error);
}
