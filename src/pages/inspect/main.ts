import "../shared/base.css";
import "./style.css";
import {readPageData} from "../shared/data.js";
import {choiceButtons, choiceList, element} from "../shared/dom.js";
import {quotedToken} from "../../visibleText.js";
import {themeButton} from "../shared/theme.js";
import {InspectionData} from "./data.js";
import {depthLines} from "./depthLines.js";
import {headMap} from "./headMap.js";
import {outlierTable} from "./outlierTable.js";
import {createStore} from "./state.js";
import {textView} from "./textView.js";
import {tokenMap} from "./tokenMap.js";
import type {InspectionPageData} from "../../inspect/pageData.js";
import type {View} from "./data.js";
import type {Store} from "./state.js";

const page = document.getElementById("page")!;
page.textContent = "Unpacking…";

InspectionData.unpack(readPageData<InspectionPageData>()).then(show, (error: unknown) => {
    page.textContent = `This file is damaged, or this browser is too old for it: ${String(error)}`;
});

function show(data: InspectionData): void {
    const store = createStore({view: "plain", layer: firstLayerToShow(data), head: 0, pinned: undefined});
    page.replaceChildren(
        header(data),
        controlBar(data, store),
        headMap(data, store),
        depthLines(data, store),
        textView(data, store),
        outlierTable(data, store)
    );
    // its size is that of the page, so it is made once that has one
    page.lastElementChild!.before(tokenMap(data, store));
    document.documentElement.dataset["ready"] = "";
}

/** One in the middle, where emulation has had its effect and still has one, and whose rows are here. */
function firstLayerToShow({source: {layers, rows}}: InspectionData): number {
    const middle = rows.layers[Math.floor(rows.layers.length / 2)];
    return middle == null
        ? Math.floor(layers.length / 2)
        : layers.indexOf(middle);
}

function header({source, tokenCount}: InspectionData): HTMLElement {
    const {model, options, rows, layers, heads} = source;
    const facts: Array<[string, string]> = [
        ["Model", `${quotedToken(model.name)} (${quotedToken(model.file)}), ${quotedToken(model.architecture)}`],
        ["Shape", `${model.layers} layers × ${model.heads} heads`],
        ["Text", `${tokenCount} tokens`],
        ["Strength", String(options.strength)],
        ["Threshold", String(options.threshold)],
        ["Source layer", String(options.sourceLayer)],
        ["Schedule", typeof options.schedule === "string" ? options.schedule : "custom"],
        ["Pattern", options.pattern],
        ["Normalized", options.normalize ? "yes" : "no"]
    ];
    const leftOut = [
        (layers.length < model.layers || heads.length < model.heads)
        && `Of the model, ${layers.length} layers and ${heads.length} heads were captured.`,
        `Of each query's weights the ${rows.keysKept} strongest are in this file`
        + `${rows.layers.length < layers.length ? `, in ${rows.layers.length} of the layers (${rows.layers.join(", ")})` : ""}; `
        + "weights below 0.01 % are left out. All measures were computed from whole rows."
    ].filter((sentence) => sentence !== false).join(" ");

    return element("header", {},
        element("div", {class: "title"}, element("h1", {}, "What each layer looks at, plain and steered"), themeButton()),
        element("dl", {class: "facts"}, ...facts.map(([name, value]) => (
            element("div", {}, element("dt", {}, name), element("dd", {}, element("bdi", {}, value)))))),
        element("p", {class: "quiet"}, leftOut));
}

function controlBar(data: InspectionData, store: Store): HTMLElement {
    const {layers, heads} = data.source;
    const view = choiceButtons<View>("Weights", [
        {value: "plain", label: "Plain"}, {value: "steered", label: "Steered"}, {value: "difference", label: "Difference"}
    ], store.state.view, (chosen) => store.set({view: chosen}));
    const layerList = choiceList("Layer", layers.map((layer, i) => (
        {value: String(i), label: `${layer}${data.hasRows(i) ? "" : " (no rows)"}`}
    )), String(store.state.layer), (chosen) => store.set({layer: Number(chosen)}));
    const headList = choiceList("Head", heads.map((head, i) => (
        {value: String(i), label: String(head)}
    )), String(store.state.head), (chosen) => store.set({head: Number(chosen)}));

    store.watch(({layer, head}) => {
        layerList.select.value = String(layer);
        headList.select.value = String(head);
    });
    return element("div", {class: "control-bar", role: "group", "aria-label": "What is shown"}, view, layerList.field, headList.field);
}
