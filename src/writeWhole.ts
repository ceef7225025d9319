import {randomUUID} from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";

/**
 * The file is there whole or as it was before. Links and devices, such as /dev/stdout, stay what they are: what they lead to is written.
 * @throws the file system's error
 */
export async function writeWhole(file: string, content: string): Promise<void> {
    const stats = await fs.lstat(file).catch(() => undefined);
    if (stats != null && !stats.isFile()) {
        await fs.writeFile(file, content);
        return;
    }
    const unfinished = path.join(path.dirname(file), `.${randomUUID()}.part`); // short, as the name may be as long as it can be
    try {
        await fs.writeFile(unfinished, content);
        await fs.rename(unfinished, file);
    } catch (error) {
        await fs.rm(unfinished, {force: true}).catch(() => undefined);
        throw error;
    }
}
