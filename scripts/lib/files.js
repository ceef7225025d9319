import {createHash} from "node:crypto";
import fs from "node:fs";
import path from "node:path";

export function hash(content) {
    return createHash("sha256").update(content).digest("hex");
}

/** The hash of a file's content, `undefined` where there is no such file. */
export function hashFile(file) {
    const content = readIfThere(file);
    return content == null
        ? undefined
        : hash(content);
}

export function readIfThere(file) {
    try {
        return fs.readFileSync(file);
    } catch (error) {
        if (error.code === "ENOENT")
            return undefined;
        throw error;
    }
}

/** Writes a file only where its content differs, so that its time stamp tells when it changed; says whether it did. */
export function writeIfDifferent(file, content) {
    const wanted = Buffer.from(content);
    if (readIfThere(file)?.equals(wanted))
        return false;

    fs.mkdirSync(path.dirname(file), {recursive: true});
    fs.writeFileSync(file, wanted);
    return true;
}

/** All files in a folder and below, as sorted paths relative to it with forward slashes. */
export function listFiles(folder) {
    if (!fs.existsSync(folder))
        return [];
    return fs.readdirSync(folder, {recursive: true, withFileTypes: true})
        .filter((entry) => entry.isFile())
        .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)).split(path.sep).join("/"))
        .sort();
}
