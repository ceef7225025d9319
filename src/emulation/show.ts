/** A value as it stands in an error message. */
export function show(value: unknown): string {
    if (typeof value === "string")
        return JSON.stringify(value);
    if (typeof value === "function")
        return "a function";
    if (Array.isArray(value))
        return "an array";
    if (value !== null && typeof value === "object")
        return "an object";
    if (typeof value === "bigint")
        return `${value}n`;
    return String(value);
}
