import {choiceList, element} from "../shared/dom.js";
import {signed} from "../../numberText.js";
import {onThemeChange} from "../shared/theme.js";
import {hideTooltip, showTooltip} from "../shared/tooltip.js";
import {colorLegend, divergingColor, sequentialColor} from "./colors.js";
import {valueOf} from "./data.js";
import {measureOf, measures} from "./measures.js";
import type {InspectionData, MeasureName, View} from "./data.js";
import type {Store} from "./state.js";

/** Layers by heads, as a table whose cells are chosen with the arrow keys or a click. */
export function headMap(data: InspectionData, store: Store): HTMLElement {
    const {layers, heads} = data.source;
    let measure = measureOf("entropy");

    const explanation = element("p", {class: "quiet"});
    const legend = element("div");
    const {field} = choiceList<MeasureName>("Measure", measures.map(({name, label}) => ({value: name, label})), measure.name, (name) => {
        measure = measureOf(name);
        paint();
    });

    const cells: HTMLTableCellElement[][] = layers.map((_, layer) => heads.map((_, head) => {
        const cell = element("td", {role: "gridcell", tabindex: -1});
        cell.addEventListener("click", () => store.set({layer, head}));
        const show = () => showTooltip([
            `Layer ${layers[layer]}, head ${heads[head]}`, ...describe(layer, head)
        ], cell.getBoundingClientRect());
        cell.addEventListener("pointerenter", show);
        cell.addEventListener("focus", show);
        cell.addEventListener("pointerleave", hideTooltip);
        cell.addEventListener("blur", hideTooltip);
        return cell;
    }));

    const labelEvery = heads.length > 16 ? 4 : 1;
    const table = element("table", {class: "head-map", role: "grid", "aria-label": "Layers by heads"},
        element("thead", {}, element("tr", {role: "row"},
            element("td", {}),
            ...heads.map((head, i) => element("th", {scope: "col", role: "columnheader", "aria-label": `head ${head}`},
                i % labelEvery === 0 ? String(head) : "")))),
        element("tbody", {}, ...layers.map((layer, i) => element("tr", {role: "row"},
            element("th", {scope: "row", role: "rowheader", "aria-label": `layer ${layer}`}, String(layer)),
            ...cells[i]!))));
    table.style.setProperty("--heads", String(heads.length));
    table.addEventListener("keydown", (event) => {
        const found = positionOf(event.target);
        if (found == null)
            return;
        const [layer, head] = found;
        if (event.key === "Enter" || event.key === " ") {
            store.set({layer, head});
            event.preventDefault();
            return;
        }
        const next = moved(event, layer, head);
        if (next == null)
            return;
        event.preventDefault();
        makeFocusable(...next);
        cells[next[0]]![next[1]]!.focus();
    });

    function positionOf(target: EventTarget | null): [number, number] | undefined {
        for (const [layer, row] of cells.entries()) {
            const head = row.indexOf(target as HTMLTableCellElement);
            if (head >= 0)
                return [layer, head];
        }
        return undefined;
    }

    function moved({key, ctrlKey}: KeyboardEvent, layer: number, head: number): [number, number] | undefined {
        const lastLayer = layers.length - 1;
        const lastHead = heads.length - 1;
        switch (key) {
            case "ArrowLeft": return [layer, Math.max(head - 1, 0)];
            case "ArrowRight": return [layer, Math.min(head + 1, lastHead)];
            case "ArrowUp": return [Math.max(layer - 1, 0), head];
            case "ArrowDown": return [Math.min(layer + 1, lastLayer), head];
            case "Home": return [ctrlKey ? 0 : layer, 0];
            case "End": return [ctrlKey ? lastLayer : layer, lastHead];
            default: return undefined;
        }
    }

    let focusable: HTMLTableCellElement | undefined;
    function makeFocusable(layer: number, head: number): void {
        focusable?.setAttribute("tabindex", "-1");
        focusable = cells[layer]![head]!;
        focusable.setAttribute("tabindex", "0");
    }

    function describe(layer: number, head: number): string[] {
        const pair = data.measure(measure.name, layer, head);
        if (Number.isNaN(pair.plain) && Number.isNaN(pair.steered))
            return [`${measure.label}: none here`];
        return [
            `${measure.label}, plain: ${measure.format(pair.plain)}`,
            `steered: ${measure.format(pair.steered)}, difference: ${signed(measure.format(pair.steered - pair.plain))}`
        ];
    }

    function paint(): void {
        const {view} = store.state;
        const {color, position, legend: newLegend} = scaleFor(view);
        for (const [layer, row] of cells.entries()) {
            for (const [head, cell] of row.entries()) {
                const value = valueOf(view, data.measure(measure.name, layer, head));
                cell.style.backgroundColor = Number.isNaN(value) ? "" : color(position(value));
                cell.classList.toggle("none", Number.isNaN(value));
                cell.setAttribute("aria-label", `layer ${layers[layer]}, head ${heads[head]}: ${describe(layer, head).join(", ")}`);
            }
        }
        explanation.textContent = measure.explanation;
        legend.replaceChildren(newLegend);
    }

    /** The same for plain and steered, so that they can be compared. */
    function scaleFor(view: View): {color: (position: number) => string, position: (value: number) => number, legend: HTMLElement} {
        const pairs = layers.flatMap((_, layer) => heads.map((_, head) => data.measure(measure.name, layer, head)));
        if (view === "difference") {
            const most = Math.max(...pairs.map(({plain, steered}) => Math.abs(steered - plain)).filter(Number.isFinite), 1e-6);
            const color = divergingColor();
            const end = measure.format(most);
            return {color, position: (value) => value / most, legend: colorLegend(color, [-1, 1], [`−${end}`, "0", `+${end}`])};
        }
        const values = pairs.flatMap(({plain, steered}) => [plain, steered]).filter(Number.isFinite);
        const least = Math.min(...values);
        const most = Math.max(...values);
        const color = sequentialColor();
        return {
            color,
            position: (value) => most > least ? (value - least) / (most - least) : 0,
            legend: colorLegend(color, [0, 1], [measure.format(least), measure.format((least + most) / 2), measure.format(most)])
        };
    }

    store.watch((state, before) => {
        if (before == null || state.view !== before.view)
            paint();
        if (before != null)
            cells[before.layer]![before.head]!.removeAttribute("aria-selected");
        cells[state.layer]![state.head]!.setAttribute("aria-selected", "true");
        makeFocusable(state.layer, state.head);
    });
    onThemeChange(paint);

    return element("section", {"aria-labelledby": "head-map-title"},
        element("h2", {id: "head-map-title"}, "Layers and heads"),
        element("p", {}, "Each cell is a head of a layer. Choose one, with a click or with the arrow keys and Enter, and the views below show it."),
        element("div", {class: "controls"}, field, legend),
        explanation,
        element("div", {class: "table-scroll"}, table));
}
