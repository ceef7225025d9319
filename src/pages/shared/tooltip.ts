import {element} from "./dom.js";

const box = element("div", {class: "tooltip", "aria-hidden": "true", hidden: true});

/** Shows lines of text beside an element or a point. What it says is in labels too, so screen readers need not see it. */
export function showTooltip(lines: readonly string[], anchor: {left: number, right: number, top: number, bottom: number}): void {
    if (!box.isConnected)
        document.body.append(box);
    box.replaceChildren(...lines.map((line) => element("bdi", {}, line)));
    box.hidden = false;

    const gap = 8;
    const {width, height} = box.getBoundingClientRect();
    const below = anchor.bottom + gap + height <= window.innerHeight;
    const left = Math.min(Math.max(anchor.left, gap), window.innerWidth - width - gap);
    box.style.left = `${Math.max(left, gap)}px`;
    box.style.top = `${below ? anchor.bottom + gap : Math.max(anchor.top - gap - height, gap)}px`;
}

// it would stay where it was while what it is about moves
window.addEventListener("scroll", hideTooltip, {passive: true, capture: true});

export function hideTooltip(): void {
    box.hidden = true;
}
