import {element} from "./dom.js";

const region = element("div", {class: "visually-hidden", role: "status", "aria-live": "polite"});

/** Has screen readers say something that others see happen. */
export function announce(text: string): void {
    if (!region.isConnected)
        document.body.append(region);
    region.textContent = text;
}
