import fs from "node:fs/promises";
import {fileURLToPath} from "node:url";

/** Logits that the authors' own code computed: see test/oracle/README.md. */
export type Oracle = {
    tokens: number[],
    threshold: number,

    /** so many tokens go in at once, the others one by one */
    prefill_n: number,
    prefill_positions: number[],
    decode_positions: number[],
    cases: Array<{
        strength: number,
        pattern: "early-layer" | "all",
        prefill_logits: number[][],
        decode_logits: number[][]
    }>
};

const folder = new URL("../../test/oracle/", import.meta.url);

/** A LLaMA with random weights: 8 layers, width 128, 2 query heads, 1 KV head, 320 tokens, 2,048 positions. */
export const oracleModelPath = fileURLToPath(new URL("llama-8l.gguf", folder));

export async function readOracle(): Promise<Oracle> {
    return JSON.parse(await fs.readFile(new URL("llama-8l.json", folder), "utf8")) as Oracle;
}
