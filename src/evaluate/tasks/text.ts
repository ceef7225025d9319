import path from "node:path";
import {baseName, listDataFiles, readText} from "./files.js";
import type {Data, TextItem} from "../item.js";

/** Texts to be foretold: a file, or the files of a folder that end in .txt or .md. */
export async function readTexts(fileOrFolder: string): Promise<Data<TextItem>> {
    const files = await listDataFiles(fileOrFolder, [".txt", ".md", ".raw"]);
    const shortNames = files.map(baseName);
    const names = new Set(shortNames).size < files.length
        ? files.map((file) => path.basename(file))
        : shortNames;
    const texts = await Promise.all(files.map(readText));
    const items = texts.map((text, index) => ({id: names[index]!, subject: names[index]!, text}));
    const empty = items.flatMap(({text}, index) => text.trim() === ""
        ? [{file: files[index]!, line: 1, problem: "the file is empty"}]
        : []);
    return {items: items.filter(({text}) => text.trim() !== ""), badRows: empty, files};
}
