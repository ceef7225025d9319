import {baseName, listDataFiles, readText} from "./files.js";
import type {Data, TextItem} from "../item.js";

/** Texts to be foretold: a file, or the files of a folder that end in .txt or .md. */
export async function readTexts(fileOrFolder: string): Promise<Data<TextItem>> {
    const files = await listDataFiles(fileOrFolder, [".txt", ".md", ".raw"]);
    const items = await Promise.all(files.map(async (file) => ({id: baseName(file), subject: baseName(file), text: await readText(file)})));
    const empty = items.flatMap(({text}, index) => text.trim() === ""
        ? [{file: files[index]!, line: 1, problem: "the file is empty"}]
        : []);
    return {items: items.filter(({text}) => text.trim() !== ""), badRows: empty, files};
}
