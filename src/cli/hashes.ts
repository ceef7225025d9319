import path from "node:path";
import {hashFile} from "../evaluate/hash.js";
import {startProgress} from "./progress.js";

export async function hashFiles(files: readonly string[], signal?: AbortSignal): Promise<Array<{file: string, sha256: string}>> {
    return await Promise.all(files.map(async (file) => ({file: path.basename(file), sha256: await hashFile(file, {signal})})));
}

export async function hashModel(file: string, signal: AbortSignal): Promise<string> {
    using progress = startProgress("reading the model's hash");
    return await hashFile(file, {
        signal,
        onProgress: (fraction) => {
            progress.text = `reading the model's hash: ${Math.floor(100 * fraction)} %`;
        }
    });
}
