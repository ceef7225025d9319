import type {CapturedAttention, Inspection} from "./inspection.js";

/** The bytes of a large array, little-endian; in Python: `np.frombuffer(base64.b64decode(x["base64"]), x["dtype"]).reshape(x["shape"])` */
export type JsonArray = {dtype: "<f4" | "<u4", shape: number[], base64: string};

/** What `reattend inspect --json` prints: measures as nested arrays, what is of every token as bytes. `NaN` is `null`. */
export function jsonReport(inspection: Inspection): unknown {
    const {tokens, rows} = inspection;
    const rowsShape = [rows.layers.length, inspection.plain.heads.length, tokens.length, rows.topK];
    const jsonRows = ({topKeys, topWeights}: Inspection["rows"]["plain"]) => ({
        topKeys: bytes(topKeys, rowsShape),
        topWeights: bytes(topWeights, rowsShape)
    });
    return {
        ...inspection,
        plain: jsonAttention(inspection.plain),
        steered: jsonAttention(inspection.steered),
        rows: {layers: rows.layers, topK: rows.topK, plain: jsonRows(rows.plain), steered: jsonRows(rows.steered)}
    };
}

function jsonAttention(attention: CapturedAttention) {
    const {layers, heads, queries, tokens} = attention;
    const perHead = (values: Float32Array, size: number) => layers.map((_, layer) => heads.map((_, head) => {
        const start = (layer * heads.length + head) * size;
        return Array.from(values.subarray(start, start + size), numberOrNull);
    }));
    const scalars = (values: Float32Array) => perHead(values, 1).map((row) => row.map(([value]) => value));
    const ofTokens = [layers.length, heads.length, tokens.length];
    return {
        layers,
        heads,
        queries,
        entropy: scalars(attention.entropy),
        firstTokenMass: scalars(attention.firstTokenMass),
        nonSemanticMass: scalars(attention.nonSemanticMass),
        agreement: scalars(attention.agreement),
        keysPerRow: scalars(attention.keysPerRow),
        classMass: perHead(attention.classMass, 4),
        received: bytes(attention.received, ofTokens),
        receivedBy: bytes(attention.receivedBy, ofTokens)
    };
}

function bytes(array: Float32Array | Uint32Array, shape: number[]): JsonArray {
    return {
        dtype: array instanceof Float32Array ? "<f4" : "<u4",
        shape,
        base64: Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64")
    };
}

function numberOrNull(value: number): number | null {
    return Number.isFinite(value)
        ? Number(value.toPrecision(7))
        : null;
}
