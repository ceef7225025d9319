/** ggml's Q8_0: blocks of 32 values, each a half-precision scale followed by 32 signed bytes. */
const blockValues = 32;
const blockBytes = 34;

/**
 * @param {Float32Array} values
 * @returns {Buffer}
 */
export function quantizeQ8(values) {
    const blocks = values.length / blockValues;
    const output = Buffer.allocUnsafe(blocks * blockBytes);

    for (let block = 0; block < blocks; block++) {
        const start = block * blockValues;
        let largest = 0;
        for (let i = start; i < start + blockValues; i++)
            largest = Math.max(largest, Math.abs(values[i]));

        const scale = largest / 127;
        const inverse = scale === 0 ? 0 : 1 / scale;
        const outputStart = block * blockBytes;
        output.writeUInt16LE(floatToHalf(scale), outputStart);
        for (let i = 0; i < blockValues; i++)
            output[outputStart + 2 + i] = Math.round(values[start + i] * inverse);
    }

    return output;
}

/**
 * @param {Buffer} bytes
 * @returns {Float32Array}
 */
export function dequantizeQ8(bytes) {
    const blocks = bytes.length / blockBytes;
    const values = new Float32Array(blocks * blockValues);
    for (let block = 0; block < blocks; block++) {
        const start = block * blockBytes;
        const scale = halfToFloat(bytes.readUInt16LE(start));
        for (let i = 0; i < blockValues; i++)
            values[block * blockValues + i] = bytes.readInt8(start + 2 + i) * scale;
    }
    return values;
}

const smallestNormalHalf = 2 ** -14;

/** The bits of the nearest half-precision number, for 0 ≤ value < 65504: scales are never negative. */
function floatToHalf(value) {
    if (value < smallestNormalHalf)
        return Math.round(value / 2 ** -24); // a subnormal; rounding up to 1024 gives the smallest normal, as it should

    const exponent = Math.floor(Math.log2(value));
    const mantissa = Math.round((value / 2 ** exponent - 1) * 1024);
    return ((exponent + 15) << 10) + mantissa; // a mantissa of 1024 carries into the exponent, as it should
}

function halfToFloat(bits) {
    const exponent = bits >> 10;
    const mantissa = bits & 1023;
    return exponent === 0
        ? mantissa * 2 ** -24
        : (1 + mantissa / 1024) * 2 ** (exponent - 15);
}
