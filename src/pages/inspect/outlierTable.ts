import {choiceList, element} from "../shared/dom.js";
import {percent, signed} from "../../numberText.js";
import {quotedToken} from "../../visibleText.js";
import type {InspectionData, Pair} from "./data.js";
import type {Store} from "./state.js";

type Scope = "all" | "layer" | "head";

const tokensListed = 20;

type Outlier = {
    token: number,

    /** share of all queries' attention */
    share: Pair,

    /** share of the queries after it that give it more than the threshold */
    queries: Pair
};

type Column = {
    label: string,
    value: (outlier: Outlier) => number,
    format: (outlier: Outlier) => string
};

const columns: readonly Column[] = [
    {label: "At", value: ({token}) => -token, format: ({token}) => String(token)},
    {label: "Share of attention, plain", value: ({share}) => share.plain, format: ({share}) => percent(share.plain)},
    {label: "steered", value: ({share}) => share.steered, format: ({share}) => percent(share.steered)},
    {
        label: "difference", value: ({share}) => share.steered - share.plain,
        format: ({share}) => signed(percent(share.steered - share.plain))
    },
    {label: "Queries that look at it, plain", value: ({queries}) => queries.plain, format: ({queries}) => percent(queries.plain)},
    {label: "steered", value: ({queries}) => queries.steered, format: ({queries}) => percent(queries.steered)}
];

/** The tokens that attract most attention, as the paper lists them. */
export function outlierTable(data: InspectionData, store: Store): HTMLElement {
    let scope: Scope = "all";
    let column = columns[1]!;
    const {texts, classes} = data.source.tokens;
    const {field} = choiceList<Scope>("Where", [
        {value: "all", label: "all layers and heads"},
        {value: "layer", label: "the chosen layer"},
        {value: "head", label: "the chosen layer and head"}
    ], scope, (chosen) => {
        scope = chosen;
        fill();
    });

    const headers = columns.map((candidate) => {
        const button = element("button", {type: "button"}, candidate.label);
        button.addEventListener("click", () => {
            column = candidate;
            fill();
        });
        return element("th", {scope: "col"}, button);
    });
    const body = element("tbody");
    const table = element("table", {class: "data"},
        element("caption", {}, `The ${Math.min(tokensListed, data.tokenCount)} foremost by the column chosen; choose another by its title. `
            + `A query looks at a token that it gives more than ${percent(data.source.options.threshold)}.`),
        element("thead", {}, element("tr", {},
            element("th", {scope: "col", class: "left"}, "Token"), element("th", {scope: "col", class: "left"}, "Class"), ...headers)),
        body);

    function fill(): void {
        const outliers = outliersOf(data, scope, store)
            .sort((a, b) => column.value(b) - column.value(a))
            .slice(0, tokensListed);
        for (const [i, header] of headers.entries()) {
            if (columns[i] === column)
                header.setAttribute("aria-sort", column === columns[0] ? "ascending" : "descending");
            else
                header.removeAttribute("aria-sort");
        }
        body.replaceChildren(...outliers.map((outlier) => {
            const {token} = outlier;
            const pin = element("button", {"type": "button", "class": "token-text", "aria-label": `pin “${quotedToken(texts[token]!)}”, token ${token}`},
                element("bdi", {}, quotedToken(texts[token]!)));
            pin.addEventListener("click", () => store.set({pinned: token}));
            return element("tr", {},
                element("th", {scope: "row", class: "left"}, pin),
                element("td", {class: "left"}, classes[token]),
                ...columns.map(({format}) => element("td", {}, format(outlier))));
        }));
    }

    store.watch((state, before) => {
        const hasMoved = state.layer !== before?.layer || (scope === "head" && state.head !== before.head);
        if (before == null || (hasMoved && scope !== "all"))
            fill();
    });

    return element("section", {"aria-labelledby": "outliers-title"},
        element("h2", {id: "outliers-title"}, "Outlier tokens"),
        element("p", {}, "The tokens that receive most attention: often ones without meaning, and more so the later the layer."),
        element("div", {class: "controls"}, field),
        element("div", {class: "table-scroll"}, table));
}

function outliersOf(data: InspectionData, scope: Scope, {state}: Store): Outlier[] {
    const layers = scope === "all" ? data.source.layers.map((_, layer) => layer) : [state.layer];
    const heads = scope === "head" ? [state.head] : data.source.heads.map((_, head) => head);
    const places = layers.length * heads.length;

    return data.source.tokens.texts.map((_, token) => {
        const share = {plain: 0, steered: 0};
        const queries = {plain: 0, steered: 0};
        const after = data.tokenCount - 1 - token;
        for (const layer of after > 0 ? layers : []) {
            for (const head of heads) {
                addTo(share, data.receivedAt(layer, head, token), places * data.tokenCount / after);
                addTo(queries, data.receivedByAt(layer, head, token), places * after);
            }
        }
        return {token, share, queries};
    });
}

function addTo(sum: Pair, {plain, steered}: Pair, divisor: number): void {
    sum.plain += plain / divisor;
    sum.steered += steered / divisor;
}
