import {createHash} from "node:crypto";
import fs from "node:fs";
import {pipeline} from "node:stream/promises";

/** SHA-256 of a whole file, in hexadecimal digits. */
export async function hashFile(
    file: string, {signal, onProgress}: {signal?: AbortSignal, onProgress?: (fraction: number) => void} = {}
): Promise<string> {
    const {size} = await fs.promises.stat(file);
    const hash = createHash("sha256");
    let done = 0;
    await pipeline(fs.createReadStream(file, {highWaterMark: 1024 ** 2}), async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
            hash.update(chunk);
            done += chunk.length;
            onProgress?.(done / size);
        }
    }, {signal});
    return hash.digest("hex");
}

/** SHA-256 of a value's JSON, or of tokens: so many digits as tell the things of one run apart. */
export function shortHash(value: unknown): string {
    const data = value instanceof Uint32Array
        ? value
        : JSON.stringify(value);
    return createHash("sha256").update(data).digest("hex").slice(0, 16);
}
