/**
 * Writes GGUF files (version 3, little-endian): metadata, tensor directory, then the tensors' data, streamed.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import fs from "node:fs/promises";
import {quantizeQ8} from "./quantize.js";

const version = 3;
const alignment = 32;

/** How many values are produced and encoded at a time. A multiple of every block size. */
const chunkValues = 1 << 16;

const valueTypeIds = {uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9};

const tensorTypes = {
    F32: {id: 0, blockValues: 1, blockBytes: 4, encode: (values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength)},
    Q8_0: {id: 8, blockValues: 32, blockBytes: 34, encode: quantizeQ8}
};

export class GgufWriter {
    #metadata = [];
    #tensors = [];
    #dataBytes = 0;

    /**
     * @param {string} key
     * @param {"uint32" | "int32" | "float32" | "bool" | "string"} type for an array, the type of its items
     * @param {number | boolean | string | Array} value
     */
    addMetadata(key, type, value) {
        this.#metadata.push(encodeString(key), encodeTypedValue(type, value));
        return this;
    }

    /**
     * @param {string} name
     * @param {"F32" | "Q8_0"} type
     * @param {number[]} shape innermost dimension first, as ggml has it
     * @param {(values: Float32Array) => void} fill called again and again, each time to fill in the tensor's next values
     */
    addTensor(name, type, shape, fill) {
        const {blockValues, blockBytes} = tensorTypes[type];
        if (shape[0] % blockValues !== 0)
            throw new RangeError(`${name}: rows of ${shape[0]} values are not a multiple of ${type}'s block of ${blockValues}`);

        const values = shape.reduce((product, size) => product * size, 1);
        const bytes = values / blockValues * blockBytes;
        this.#tensors.push({name, type, shape, fill, values, bytes, offset: this.#dataBytes});
        this.#dataBytes += align(bytes);
        return this;
    }

    /**
     * @param {string} path
     * @param {(fraction: number) => void} [onProgress]
     */
    async write(path, onProgress) {
        const file = await fs.open(path, "w");
        try {
            const header = this.#encodeHeader();
            await file.writeFile(header);
            await file.writeFile(padding(header.length));

            let written = 0;
            for (const tensor of this.#tensors) {
                const {encode} = tensorTypes[tensor.type];
                for (let done = 0; done < tensor.values; done += chunkValues) {
                    const values = new Float32Array(Math.min(chunkValues, tensor.values - done));
                    tensor.fill(values);
                    const data = encode(values);
                    await file.writeFile(data);
                    written += data.length;
                    onProgress?.(written / this.#dataBytes);
                }
                await file.writeFile(padding(tensor.bytes));
            }
        } finally {
            await file.close();
        }
    }

    #encodeHeader() {
        const tensorInfos = this.#tensors.flatMap(({name, type, shape, offset}) => [
            encodeString(name), uint32(shape.length), ...shape.map(uint64), uint32(tensorTypes[type].id), uint64(offset)
        ]);
        return Buffer.concat([
            Buffer.from("GGUF"), uint32(version), uint64(this.#tensors.length), uint64(this.#metadata.length / 2),
            ...this.#metadata, ...tensorInfos
        ]);
    }
}

function encodeTypedValue(type, value) {
    if (!Array.isArray(value))
        return Buffer.concat([uint32(valueTypeIds[type]), encodeValue(type, value)]);

    return Buffer.concat([
        uint32(valueTypeIds.array), uint32(valueTypeIds[type]), uint64(value.length),
        ...value.map((item) => encodeValue(type, item))
    ]);
}

function encodeValue(type, value) {
    switch (type) {
        case "uint32": return uint32(value);
        case "int32": return littleEndian(4, (buffer) => buffer.writeInt32LE(value));
        case "float32": return littleEndian(4, (buffer) => buffer.writeFloatLE(value));
        case "bool": return Buffer.from([value ? 1 : 0]);
        case "string": return encodeString(value);
        default: throw new TypeError(`GGUF metadata of type ${type} is not supported here`);
    }
}

function encodeString(text) {
    const bytes = Buffer.from(text, "utf8");
    return Buffer.concat([uint64(bytes.length), bytes]);
}

function uint32(value) {
    return littleEndian(4, (buffer) => buffer.writeUInt32LE(value));
}

function uint64(value) {
    return littleEndian(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value)));
}

function littleEndian(bytes, write) {
    const buffer = Buffer.alloc(bytes);
    write(buffer);
    return buffer;
}

function align(bytes) {
    return Math.ceil(bytes / alignment) * alignment;
}

function padding(bytes) {
    return Buffer.alloc(align(bytes) - bytes);
}
