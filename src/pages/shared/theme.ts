import {element} from "./dom.js";

export type Theme = "light" | "dark";

const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

export function currentTheme(): Theme {
    const chosen = document.documentElement.dataset["theme"];
    if (chosen === "light" || chosen === "dark")
        return chosen;
    return system.matches ? "dark" : "light";
}

/** Calls back whenever the colours change, for what is drawn with fixed ones. */
export function onThemeChange(listener: () => void): void {
    listeners.add(listener);
}

/** Follows the system until it is pressed. */
export function themeButton(): HTMLButtonElement {
    const button = element("button", {type: "button", class: "theme"});
    const label = () => {
        button.textContent = currentTheme() === "dark" ? "Light colours" : "Dark colours";
    };
    button.addEventListener("click", () => {
        document.documentElement.dataset["theme"] = currentTheme() === "dark" ? "light" : "dark";
        notify();
    });
    system.addEventListener("change", notify);
    onThemeChange(label);
    label();
    return button;
}

function notify(): void {
    for (const listener of listeners)
        listener();
}

/** The value of a custom property of base.css, such as "--accent", in the current theme. */
export function themeColor(name: string): string {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
