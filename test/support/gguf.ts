/** Writes GGUF files with the benchmark's writer. */
export type GgufWriter = {
    addMetadata(key: string, type: "uint32" | "int32" | "float32" | "bool" | "string", value: number | boolean | string | unknown[]): GgufWriter,
    addTensor(name: string, type: "F32", shape: readonly number[], fill: (values: Float32Array) => void): GgufWriter,
    write(path: string): Promise<void>
};

const library = new URL("../../bench/lib/", import.meta.url);
const {GgufWriter} = await import(new URL("gguf-writer.js", library).href) as {GgufWriter: new () => GgufWriter};
const {addTokenizer} = await import(new URL("tokenizer.js", library).href) as {
    addTokenizer: (writer: GgufWriter, vocabulary: number) => void
};
export {GgufWriter, addTokenizer};

/** `shape` has the innermost dimension first, as ggml has it. */
export type Tensor = {shape: readonly number[], values: Float32Array};

export function addTensors(writer: GgufWriter, tensors: ReadonlyMap<string, Tensor>): GgufWriter {
    for (const [name, {shape, values}] of tensors) {
        // the writer asks for some values at a time
        let done = 0;
        writer.addTensor(name, "F32", shape, (part) => {
            part.set(values.subarray(done, done + part.length));
            done += part.length;
        });
    }
    return writer;
}
