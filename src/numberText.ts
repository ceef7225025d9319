/** Three digits, as people read them easily: 12.3 %, 0.0452 %, 0 %. Below a millionth it is nothing. */
export function percent(fraction: number): string {
    const text = digits(fraction * 100);
    return text === "–" ? text : `${text} %`;
}

/** As short as it can be, for scales: 1 %, 0.03 %. */
export function roundPercent(fraction: number): string {
    return `${Number((fraction * 100).toPrecision(1))} %`;
}

export function digits(value: number): string {
    if (!Number.isFinite(value))
        return "–";
    const size = Math.abs(value);
    if (size < 1e-6)
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

/** 1 round, 2 rounds. */
export function counted(count: number, noun: string): string {
    return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
