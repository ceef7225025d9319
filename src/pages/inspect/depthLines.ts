import {dot, lineY, plot, pointerX, ruleX, ruleY} from "@observablehq/plot";
import {element} from "../shared/dom.js";
import {hideTooltip, showTooltip} from "../shared/tooltip.js";
import {measureOf} from "./measures.js";
import type {InspectionData, MeasureName, Pair, Side} from "./data.js";
import type {Measure} from "./measures.js";
import type {Store} from "./state.js";

const shown: readonly MeasureName[] = ["entropy", "nonSemanticMass", "firstTokenMass", "agreement"];

/** as style.css has them */
const leastChartWidth = 420;
const columnGap = 32;

type Point = Pair & {layer: number};

/** Means over heads, layer by layer, plain against steered. */
export function depthLines(data: InspectionData, store: Store): HTMLElement {
    const charts = element("div", {class: "charts"});
    const pointsOf = new Map(shown.map((name) => [
        name, data.source.layers.map((layer, i): Point => ({layer, ...meanOverHeads(data, name, i)}))
    ]));

    let width = 0;
    function draw(): void {
        if (width === 0)
            return;
        charts.replaceChildren(...shown.map((name) => {
            const measure = measureOf(name);
            return element("figure", {},
                element("figcaption", {}, measure.label),
                lineChart(measure, pointsOf.get(name)!, {width, selectedLayer: data.source.layers[store.state.layer]!}));
        }));
    }
    store.watch((state, before) => {
        if (state.layer !== before?.layer)
            draw();
    });
    // a chart as wide as its place has letters of their own size
    new ResizeObserver(() => {
        const columns = Math.max(Math.floor((charts.clientWidth + columnGap) / (leastChartWidth + columnGap)), 1);
        const newWidth = Math.floor((charts.clientWidth - (columns - 1) * columnGap) / columns);
        if (newWidth > 0 && newWidth !== width) {
            width = newWidth;
            draw();
        }
    }).observe(charts);

    return element("section", {"aria-labelledby": "depth-title"},
        element("h2", {id: "depth-title"}, "Over depth"),
        element("p", {}, "Means over heads. Attention that collapses shows as falling entropy and rising weight on tokens without meaning."),
        element("p", {class: "key"},
            element("span", {class: "key-plain"}, "plain"), " ", element("span", {class: "key-steered"}, "steered")),
        charts,
        element("details", {}, element("summary", {}, "The numbers"), numbersTable(data, pointsOf)));
}

function meanOverHeads(data: InspectionData, name: MeasureName, layer: number): Pair {
    const pairs = data.source.heads.map((_, head) => data.measure(name, layer, head));
    const mean = (side: Side) => {
        const values = pairs.map((pair) => pair[side]).filter(Number.isFinite);
        return values.reduce((sum, value) => sum + value, 0) / values.length;
    };
    return {plain: mean("plain"), steered: mean("steered")};
}

function lineChart(
    measure: Measure, points: readonly Point[], {width, selectedLayer}: {width: number, selectedLayer: number}
): HTMLElement | SVGSVGElement {
    const isShare = measure.name !== "entropy";
    const sides = (["plain", "steered"] as const).flatMap((side) => {
        const line = {x: "layer", y: side, stroke: `var(--${side})`};
        return [
            lineY(points, {...line, strokeWidth: 2, strokeDasharray: side === "plain" ? "5 4" : undefined}),
            dot(points, {x: "layer", y: side, fill: `var(--${side})`, r: points.length > 40 ? 1.5 : 2.5})
        ];
    });
    const chart = plot({
        width,
        height: 240,
        marginLeft: 44,
        marginBottom: 40,
        style: {background: "none", color: "var(--text)", fontSize: "12px"},
        ariaLabel: `${measure.label} over depth: ${points.map(({layer, plain, steered}) => (
            `layer ${layer}: plain ${measure.format(plain)}, steered ${measure.format(steered)}`
        )).join("; ")}`,
        x: {label: "layer", labelOffset: 36, tickFormat: "d", ticks: Math.min(points.length, width < 450 ? 6 : 9)},
        y: {label: isShare ? null : "nats", grid: true, zero: true, percent: isShare, tickFormat: isShare ? (value: number) => `${value} %` : undefined, nice: true},
        marks: [
            ruleY([0], {stroke: "var(--line)"}),
            ruleX([selectedLayer], {stroke: "var(--quiet)", strokeOpacity: 0.5}),
            ...sides,
            ruleX(points, pointerX({x: "layer", stroke: "var(--quiet)"}))
        ]
    });
    chart.setAttribute("role", "img");
    chart.addEventListener("input", () => {
        const point = chart.value as Point | null;
        if (point == null)
            hideTooltip();
    });
    chart.addEventListener("pointermove", (event) => {
        const point = (chart as unknown as {value: Point | null}).value;
        const {clientX, clientY} = event as PointerEvent;
        if (point != null)
            showTooltip([
                `Layer ${point.layer}`, `plain: ${measure.format(point.plain)}`, `steered: ${measure.format(point.steered)}`
            ], {left: clientX + 12, right: clientX, top: clientY, bottom: clientY});
    });
    chart.addEventListener("pointerleave", hideTooltip);
    return chart;
}

function numbersTable(data: InspectionData, pointsOf: ReadonlyMap<MeasureName, readonly Point[]>): HTMLElement {
    const head = element("tr", {}, element("th", {scope: "col"}, "Layer"),
        ...shown.flatMap((name) => (["plain", "steered"] as const).map((side) => (
            element("th", {scope: "col"}, `${measureOf(name).label}, ${side}`)))));
    const rows = data.source.layers.map((layer, i) => element("tr", {},
        element("th", {scope: "row"}, String(layer)),
        ...shown.flatMap((name) => {
            const point = pointsOf.get(name)![i]!;
            return [point.plain, point.steered].map((value) => element("td", {}, measureOf(name).format(value)));
        })));
    return element("div", {class: "table-scroll"},
        element("table", {class: "data"}, element("thead", {}, head), element("tbody", {}, ...rows)));
}
