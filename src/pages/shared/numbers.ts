/** Three digits, in what people read easily: 12.3 %, 0.0452 %, 0. */
export function percent(fraction: number): string {
    return `${digits(fraction * 100)} %`;
}

export function digits(value: number): string {
    if (!Number.isFinite(value))
        return "–";
    const size = Math.abs(value);
    if (size === 0)
        return "0";
    const text = size >= 1000 || size < 1e-4
        ? value.toPrecision(3)
        : value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
    return text.replace("-", "−");
}

/** With a sign, for differences. */
export function signed(text: string): string {
    return text.startsWith("−") || text === "–" || /^0( |$)/.test(text)
        ? text
        : `+${text}`;
}
