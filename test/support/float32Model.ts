import fs from "node:fs/promises";
import {GgmlType, readGgufFileInfo} from "reattend";

/**
 * Writes a copy of a GGUF file of F32 and F16 weights with all of them in F32: then llama.cpp computes in 32 bits throughout,
 * where with F16 weights it rounds what it multiplies by them.
 */
export async function writeFloat32Model(sourcePath: string, path: string): Promise<void> {
    const {totalMetadataSize, totalTensorInfoSize, fullTensorInfo} = await readGgufFileInfo(sourcePath, {logWarnings: false});
    const source = await fs.readFile(sourcePath);
    const infos = Buffer.from(source.subarray(totalMetadataSize, totalMetadataSize + totalTensorInfoSize!));
    const data: Buffer[] = [];

    let infoEnd = 0;
    let offset = 0;
    for (const {name, dimensions, ggmlType, fileOffset} of fullTensorInfo!) {
        const count = dimensions.reduce<number>((product, size) => product * Number(size), 1);
        const values = Buffer.alloc(pad(4 * count));
        for (let i = 0; i < count; i++)
            values.writeFloatLE(readWeight(source, ggmlType, Number(fileOffset), i), 4 * i);
        data.push(values);

        // name (its length first), number of dimensions, dimensions, type, offset
        infoEnd += 8 + Buffer.byteLength(name) + 4 + 8 * dimensions.length + 4 + 8;
        infos.writeUInt32LE(GgmlType.F32, infoEnd - 12);
        infos.writeBigUInt64LE(BigInt(offset), infoEnd - 8);
        offset += values.length;
    }

    const head = Buffer.concat([source.subarray(0, totalMetadataSize), infos]);
    await fs.writeFile(path, Buffer.concat([head, Buffer.alloc(pad(head.length) - head.length), ...data]));
}

/** A weight of a tensor of F32 or F16 that starts at an offset. */
export function readWeight(file: Buffer, type: GgmlType, start: number, index: number): number {
    if (type === GgmlType.F32)
        return file.readFloatLE(start + 4 * index);
    if (type === GgmlType.F16)
        return halfToNumber(file.readUInt16LE(start + 2 * index));
    throw new Error(`Weights of type ${GgmlType[type]} are not read here`);
}

function halfToNumber(bits: number): number {
    const sign = bits & 0x8000
        ? -1
        : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    return exponent === 0
        ? sign * fraction * 2 ** -24
        : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** GGUF's default alignment. */
function pad(size: number): number {
    return Math.ceil(size / 32) * 32;
}
