import {announce} from "../shared/announce.js";
import {element} from "../shared/dom.js";
import {quotedToken, visibleText} from "../../visibleText.js";
import {onThemeChange} from "../shared/theme.js";
import {hideTooltip, showTooltip} from "../shared/tooltip.js";
import {divergingColor, leastWeightShown, logPosition, sequentialColor, textColorOn, weightLegend} from "./colors.js";
import {valueOf} from "./data.js";
import {describeReceived, describeWeights, tokenName, weight, weightDifference} from "./tokens.js";
import type {InspectionData, Pair} from "./data.js";
import type {State, Store} from "./state.js";

const keysListed = 12;

/** The text, each token shaded by what it receives from all queries, or from the pinned one. */
export function textView(data: InspectionData, store: Store): HTMLElement {
    const {texts, classes, ids} = data.source.tokens;
    const heading = element("p", {"aria-live": "polite"});
    const unpin = element("button", {type: "button"}, "Unpin (Esc)");
    unpin.addEventListener("click", () => store.set({pinned: undefined}));
    const legend = element("div");
    const details = element("div", {class: "details"});

    const tokens = texts.map((text, token) => element("span", {
        "role": "button", "tabindex": token === 0 ? 0 : -1, "class": `token ${classes[token]}`, "data-token": token, "aria-pressed": "false"
    }, visibleText(text)));
    const box = element("div", {class: "text", role: "group", "aria-label": "The text, token by token", dir: "ltr"},
        ...tokens.flatMap((token, i) => texts[i]!.includes("\n") ? [token, element("br")] : [token]));

    let pinnedRow = new Map<number, Pair>();

    function describe(token: number): string[] {
        const {layer, head, pinned} = store.state;
        const lines = [
            `${tokenName(data, token)} (id ${ids[token]}, ${classes[token]})`, ...describeReceived(data, layer, head, token)
        ];
        if (pinned != null && data.hasRows(layer)) {
            const pair = pinnedRow.get(token);
            lines.push(`from the pinned token: ${pair == null ? "not among the kept weights" : describeWeights(pair)}`);
        }
        return lines;
    }

    function tokenOf(target: EventTarget | null): number | undefined {
        const span = target instanceof Element ? target.closest<HTMLElement>("[data-token]") : null;
        return span == null ? undefined : Number(span.dataset["token"]);
    }

    function togglePin(token: number): void {
        store.set({pinned: store.state.pinned === token ? undefined : token});
    }

    let focusable = 0;
    function focus(token: number): void {
        tokens[focusable]!.tabIndex = -1;
        focusable = token;
        tokens[token]!.tabIndex = 0;
        tokens[token]!.focus();
    }

    box.addEventListener("pointerover", (event) => {
        const token = tokenOf(event.target);
        if (token != null)
            showTooltip(describe(token), tokens[token]!.getBoundingClientRect());
    });
    box.addEventListener("pointerout", hideTooltip);
    box.addEventListener("click", (event) => {
        const token = tokenOf(event.target);
        if (token != null) {
            focus(token);
            togglePin(token);
        }
    });
    box.addEventListener("focusin", (event) => {
        const token = tokenOf(event.target);
        if (token == null || !tokens[token]!.matches(":focus-visible"))
            return;
        showTooltip(describe(token), tokens[token]!.getBoundingClientRect());
        announce(describe(token).join("; "));
    });
    box.addEventListener("focusout", hideTooltip);
    box.addEventListener("keydown", (event) => {
        const token = tokenOf(event.target);
        if (token == null)
            return;
        const next = {
            ArrowRight: token + 1, ArrowLeft: token - 1, Home: 0, End: tokens.length - 1,
            ArrowDown: inNextLine(tokens, token, 1), ArrowUp: inNextLine(tokens, token, -1)
        }[event.key];
        if (event.key === "Enter" || event.key === " ")
            togglePin(token);
        else if (event.key === "Escape")
            store.set({pinned: undefined});
        else if (next != null)
            focus(Math.min(Math.max(next, 0), tokens.length - 1));
        else
            return;
        event.preventDefault();
    });

    function paint(state: Readonly<State>): void {
        const {view, layer, head, pinned} = state;
        const isDifference = view === "difference";
        const color = isDifference ? divergingColor() : sequentialColor();
        const showsRow = pinned != null && data.hasRows(layer);
        // of what all queries look at, more than an even share stands out; differences are smaller
        const least = showsRow || isDifference ? leastWeightShown : 1 / Math.max(data.tokenCount, 10);
        pinnedRow = new Map(showsRow ? data.row(layer, head, pinned).map((key) => [key.key, key]) : []);

        for (const [token, span] of tokens.entries()) {
            const pair = showsRow ? pinnedRow.get(token) : data.receivedAt(layer, head, token);
            const value = pair == null ? NaN : valueOf(view, pair);
            const position = Number.isNaN(value) ? 0 : logPosition(value, least);
            const background = position === 0 ? "" : color(position);
            span.style.backgroundColor = background;
            span.style.color = background === "" ? "" : textColorOn(background);
            span.classList.toggle("pinned", token === pinned);
            span.setAttribute("aria-pressed", String(token === pinned));
        }

        const place = `layer ${data.source.layers[layer]}, head ${data.source.heads[head]}`;
        const words = {plain: "plain", steered: "steered", difference: "steered less plain"}[view];
        heading.replaceChildren(
            pinned == null
                ? `Shaded by the mean weight that a token receives from those after it, in ${place}, ${words}.`
                : showsRow
                    ? element("span", {}, "Shaded by the weights of ", element("bdi", {}, tokenName(data, pinned)), ` in ${place}, ${words}.`)
                    : `The rows of ${place} were left out of this file: shaded by what tokens receive from all others.`);
        unpin.hidden = pinned == null;
        legend.replaceChildren(weightLegend(isDifference, least));
        showDetails(state);
    }

    function showDetails({layer, head, pinned}: Readonly<State>): void {
        if (pinned == null) {
            details.replaceChildren(element("p", {class: "quiet"},
                "Choose a token, with a click or with the arrow keys and Enter, to pin it as a query and see what it looks at."));
            return;
        }
        const keys = data.row(layer, head, pinned)
            .sort((a, b) => strength(b) - strength(a))
            .slice(0, keysListed);
        details.replaceChildren(
            element("h3", {}, element("bdi", {}, tokenName(data, pinned))),
            element("p", {class: "quiet"}, `id ${ids[pinned]}, ${classes[pinned]}; ${describeReceived(data, layer, head, pinned).join("; ")}`),
            keys.length === 0
                ? element("p", {class: "quiet"}, "The rows of this layer were left out of this file.")
                : element("div", {class: "table-scroll"}, element("table", {class: "data"},
                    element("caption", {}, "What it looks at most"),
                    element("thead", {}, element("tr", {},
                        element("th", {scope: "col", class: "left"}, "Token"), element("th", {scope: "col"}, "At"),
                        element("th", {scope: "col"}, "Plain"), element("th", {scope: "col"}, "Steered"),
                        element("th", {scope: "col"}, "Difference"))),
                    element("tbody", {}, ...keys.map((pair) => element("tr", {},
                        element("th", {scope: "row", class: "left token-text"}, element("bdi", {}, quotedToken(texts[pair.key]!))),
                        element("td", {}, String(pair.key)),
                        element("td", {}, weight(pair.plain)),
                        element("td", {}, weight(pair.steered)),
                        element("td", {}, weightDifference(pair))))))));
    }

    store.watch((state, before) => {
        paint(state);
        if (before != null && state.pinned != null && state.pinned !== before.pinned && focusable !== state.pinned) {
            tokens[focusable]!.tabIndex = -1;
            focusable = state.pinned;
            tokens[focusable]!.tabIndex = 0;
            scrollInto(box, tokens[focusable]!);
        }
    });
    onThemeChange(() => paint(store.state));

    return element("section", {"aria-labelledby": "text-title"},
        element("h2", {id: "text-title"}, "The text"),
        element("div", {class: "controls"}, heading, unpin),
        legend,
        element("div", {class: "text-and-details"}, box, details));
}

function strength({plain, steered}: Pair): number {
    return Math.max(plain || 0, steered || 0);
}

/** The token nearest to the given one in the line below (1) or above (-1). */
function inNextLine(tokens: readonly HTMLElement[], from: number, direction: 1 | -1): number {
    const middle = (token: HTMLElement) => token.offsetLeft + token.offsetWidth / 2;
    const start = tokens[from]!;
    let best = from;
    let line: number | undefined;
    for (let i = from + direction; i >= 0 && i < tokens.length; i += direction) {
        const token = tokens[i]!;
        if (Math.abs(token.offsetTop - start.offsetTop) < 5)
            continue;
        line ??= token.offsetTop;
        if (Math.abs(token.offsetTop - line) >= 5)
            break;
        if (best === from || Math.abs(middle(token) - middle(start)) < Math.abs(middle(tokens[best]!) - middle(start)))
            best = i;
    }
    return best;
}

/** Without moving the page. */
function scrollInto(box: HTMLElement, child: HTMLElement): void {
    const top = child.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - child.offsetHeight)
        box.scrollTop = top - box.clientHeight / 2;
}
