import {color as parseColor} from "d3";
import {announce} from "../shared/announce.js";
import {element} from "../shared/dom.js";
import {visibleText} from "../../visibleText.js";
import {onThemeChange, themeColor} from "../shared/theme.js";
import {hideTooltip, showTooltip} from "../shared/tooltip.js";
import {divergingColor, leastWeightShown, logPosition, sequentialColor, weightLegend} from "./colors.js";
import {valueOf} from "./data.js";
import {describeWeights, tokenName} from "./tokens.js";
import type {InspectionData, RowKey} from "./data.js";
import type {State, Store} from "./state.js";

const leastTokensShown = 12;
const largestSide = 760;

/** Cells as wide as this are labelled with their tokens. */
const labelledCell = 11;
const colorSteps = 255;

type Cursor = {query: number, key: number};

/**
 * Queries by keys, on a canvas. Of a long text a pixel stands for several tokens, and shows the greatest of their weights; zooming in
 * shows each.
 */
export function tokenMap(data: InspectionData, store: Store): HTMLElement {
    const total = data.tokenCount;
    const canvas = element("canvas", {
        "tabindex": 0, "role": "application", "aria-label": "Tokens by tokens: rows are queries, columns the tokens that they look at. "
            + "Arrow keys move, plus and minus zoom, Enter pins the query."
    });
    const wrapper = element("div", {class: "token-map"}, canvas);
    const heading = element("p");
    const legend = element("div");
    const range = element("span", {class: "quiet"});

    /** the tokens in view, the same in both directions but for where they begin */
    let shown = total;
    let firstQuery = 0;
    let firstKey = 0;
    let cursor: Cursor = {query: total - 1, key: 0};
    let side = largestSide;
    let margin = 0;
    let rows: RowKey[][] = [];

    const buttons = [
        zoomButton("Zoom in", "+", () => zoom(shown / 2)),
        zoomButton("Zoom out", "−", () => zoom(shown * 2)),
        zoomButton("Whole text", "Whole text", () => zoom(total))
    ];

    function zoomButton(label: string, text: string, onClick: () => void): HTMLButtonElement {
        const button = element("button", {"type": "button", "aria-label": label}, text);
        button.addEventListener("click", onClick);
        return button;
    }

    /** Shows so many tokens around a cell, the cursor's unless told. */
    function zoom(count: number, around: Cursor = cursor): void {
        const before = shown;
        shown = Math.round(Math.min(Math.max(count, Math.min(leastTokensShown, total)), total));
        // the cell stays where it is
        firstQuery = within(around.query - (around.query - firstQuery) * shown / before);
        firstKey = within(around.key - (around.key - firstKey) * shown / before);
        keepInView(around);
        draw();
    }

    function within(first: number): number {
        return Math.round(Math.min(Math.max(first, 0), total - shown));
    }

    function keepInView({query, key}: Cursor): void {
        firstQuery = within(Math.min(Math.max(firstQuery, query - shown + 1), query));
        firstKey = within(Math.min(Math.max(firstKey, key - shown + 1), key));
    }

    function readRows({layer, head}: Readonly<State>): void {
        rows = data.hasRows(layer)
            ? Array.from({length: total}, (_, query) => data.row(layer, head, query))
            : [];
    }

    function draw(): void {
        const {view, pinned} = store.state;
        const ratio = window.devicePixelRatio;
        side = Math.max(Math.min(wrapper.clientWidth, largestSide), 200);
        const cell = (side - 30) / shown;
        margin = cell >= labelledCell
            ? Math.min(110, side / 4)
            : 34;
        const mapSide = side - margin;
        canvas.width = canvas.height = Math.round(side * ratio);
        canvas.style.width = canvas.style.height = `${side}px`;

        const context = canvas.getContext("2d")!;
        context.scale(ratio, ratio);
        context.strokeStyle = themeColor("--line");
        context.strokeRect(margin, margin, mapSide, mapSide);
        context.imageSmoothingEnabled = false;
        context.drawImage(paintCells(view, Math.min(shown, Math.floor(mapSide * ratio))), margin, margin, mapSide, mapSide);
        drawLabels(context, mapSide);
        if (pinned != null)
            outline(context, mapSide, {query: pinned, key: firstKey}, shown, themeColor("--steered"));
        outline(context, mapSide, cursor, 1, themeColor("--focus"));

        range.textContent = shown === total
            ? `all ${total} tokens`
            : `queries ${firstQuery} to ${firstQuery + shown - 1}, keys ${firstKey} to ${firstKey + shown - 1}`;
    }

    /** An image with a pixel for each cell, or for the strongest one of those that share it. */
    function paintCells(view: Readonly<State>["view"], size: number): HTMLCanvasElement {
        const positions = new Float32Array(size * size);
        for (let query = firstQuery; query < firstQuery + shown; query++) {
            const y = Math.floor((query - firstQuery) * size / shown);
            for (const pair of rows[query] ?? []) {
                const x = Math.floor((pair.key - firstKey) * size / shown);
                const position = logPosition(valueOf(view, pair), leastWeightShown);
                if (x >= 0 && x < size && Math.abs(position) > Math.abs(positions[y * size + x]!))
                    positions[y * size + x] = position;
            }
        }

        const image = new ImageData(size, size);
        const palette = paletteOf(view === "difference" ? divergingColor() : sequentialColor());
        const pixels = new Uint32Array(image.data.buffer);
        for (let i = 0; i < pixels.length; i++) {
            if (positions[i] !== 0)
                pixels[i] = palette[Math.round(positions[i]! * colorSteps) + colorSteps]!;
        }
        const painted = element("canvas", {width: size, height: size});
        painted.getContext("2d")!.putImageData(image, 0, 0);
        return painted;
    }

    function drawLabels(context: CanvasRenderingContext2D, mapSide: number): void {
        const cell = mapSide / shown;
        const isLabelled = cell >= labelledCell;
        const step = isLabelled ? 1 : niceStep(shown * 48 / mapSide);
        const limit = margin - 6;
        context.fillStyle = themeColor("--quiet");
        context.font = `${isLabelled ? 11 : 10}px ui-monospace, "DejaVu Sans Mono", monospace`;
        context.textBaseline = "middle";
        context.textAlign = "right";
        context.direction = "ltr";
        const labelOf = (token: number) => isLabelled ? visibleText(data.source.tokens.texts[token]!) : String(token);

        for (let query = Math.ceil(firstQuery / step) * step; query < firstQuery + shown; query += step)
            context.fillText(labelOf(query), margin - 5, margin + (query - firstQuery + 0.5) * cell, limit);
        for (let key = Math.ceil(firstKey / step) * step; key < firstKey + shown; key += step) {
            context.save();
            context.translate(margin + (key - firstKey + 0.5) * cell, margin - 5);
            if (isLabelled) {
                context.rotate(Math.PI / 2);
                context.fillText(labelOf(key), 0, 0, limit);
            } else {
                context.textAlign = "center";
                context.fillText(labelOf(key), 0, -4);
            }
            context.restore();
        }
    }

    function outline(context: CanvasRenderingContext2D, mapSide: number, {query, key}: Cursor, width: number, color: string): void {
        const cell = mapSide / shown;
        const y = (query - firstQuery) * cell;
        const x = (key - firstKey) * cell;
        if (y < 0 || y >= mapSide || x < 0 || x >= mapSide)
            return;
        const least = 5; // so that it can be seen where cells are pixels
        context.strokeStyle = color;
        context.lineWidth = 2;
        const grow = Math.max(least - cell, 0) / 2;
        context.save();
        context.beginPath();
        context.rect(margin - 4, margin - 4, mapSide + 8, mapSide + 8);
        context.clip();
        context.strokeRect(margin + x - grow, margin + y - grow, Math.max(cell * width, least), Math.max(cell, least));
        context.restore();
    }

    function describe({query, key}: Cursor): string[] {
        const pair = rows[query]?.find((entry) => entry.key === key);
        const weights = pair != null
            ? describeWeights(pair)
            : key > query
                ? "comes after the query"
                : "not among the kept weights";
        return [`query: ${tokenName(data, query)}`, `looks at: ${tokenName(data, key)}`, weights];
    }

    function cellAt({clientX, clientY}: MouseEvent): Cursor | undefined {
        const box = canvas.getBoundingClientRect();
        const cell = (side - margin) / shown;
        const query = firstQuery + Math.floor((clientY - box.top - margin) / cell);
        const key = firstKey + Math.floor((clientX - box.left - margin) / cell);
        const isInside = query >= firstQuery && query < firstQuery + shown && key >= firstKey && key < firstKey + shown;
        return isInside ? {query, key} : undefined;
    }

    function pin(query: number): void {
        store.set({pinned: store.state.pinned === query ? undefined : query});
    }

    let dragged: {x: number, y: number, firstQuery: number, firstKey: number, hasMoved: boolean} | undefined;
    canvas.addEventListener("pointerdown", (event) => {
        dragged = {x: event.clientX, y: event.clientY, firstQuery, firstKey, hasMoved: false};
        canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
        if (dragged != null) {
            const cell = (side - margin) / shown;
            const [dx, dy] = [event.clientX - dragged.x, event.clientY - dragged.y];
            dragged.hasMoved ||= Math.hypot(dx, dy) > 4;
            if (dragged.hasMoved) {
                hideTooltip();
                firstKey = within(dragged.firstKey - dx / cell);
                firstQuery = within(dragged.firstQuery - dy / cell);
                draw();
                return;
            }
        }
        const found = cellAt(event);
        if (found == null)
            hideTooltip();
        else
            showTooltip(describe(found), {left: event.clientX + 14, right: event.clientX, top: event.clientY, bottom: event.clientY + 8});
    });
    canvas.addEventListener("pointerup", (event) => {
        const found = cellAt(event);
        if (dragged?.hasMoved === false && found != null) {
            cursor = found;
            pin(found.query);
        }
        dragged = undefined;
    });
    canvas.addEventListener("pointercancel", () => {
        dragged = undefined;
    });
    canvas.addEventListener("pointerleave", hideTooltip);
    canvas.addEventListener("blur", hideTooltip);
    canvas.addEventListener("wheel", (event) => {
        // the wheel alone scrolls the page; a pinch comes with the control key
        if (!event.ctrlKey)
            return;
        event.preventDefault();
        zoom(shown * Math.exp(event.deltaY / 100), cellAt(event));
    }, {passive: false});
    canvas.addEventListener("keydown", (event) => {
        const step = event.shiftKey ? 10 : 1;
        const moves: Record<string, [number, number] | undefined> = {
            ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step], Home: [0, -total], End: [0, total]
        };
        const move = moves[event.key];
        if (move != null) {
            const to = (at: number, by: number) => Math.min(Math.max(at + by, 0), total - 1);
            cursor = {query: to(cursor.query, move[0]), key: to(cursor.key, move[1])};
            keepInView(cursor);
            draw();
            const cell = (side - margin) / shown;
            const box = canvas.getBoundingClientRect();
            const left = box.left + margin + (cursor.key - firstKey + 1) * cell;
            const top = box.top + margin + (cursor.query - firstQuery) * cell;
            showTooltip(describe(cursor), {left, right: left, top, bottom: top + cell});
            announce(describe(cursor).join("; "));
        } else if (event.key === "+" || event.key === "=")
            zoom(shown / 2);
        else if (event.key === "-")
            zoom(shown * 2);
        else if (event.key === "Enter" || event.key === " ")
            pin(cursor.query);
        else if (event.key === "Escape")
            store.set({pinned: undefined});
        else
            return;
        event.preventDefault();
    });

    store.watch((state, before) => {
        if (before == null || state.layer !== before.layer || state.head !== before.head)
            readRows(state);
        if (state.pinned != null && state.pinned !== before?.pinned && state.pinned !== cursor.query) {
            cursor = {...cursor, query: state.pinned};
            keepInView(cursor);
        }
        const place = `Layer ${data.source.layers[state.layer]}, head ${data.source.heads[state.head]}`;
        heading.textContent = data.hasRows(state.layer)
            ? `${place}: each row is a query, each column a token that it looks at. Blank cells are weights that are not among the strongest, or below 0.01 %.`
            : `${place}: the rows of this layer were left out of this file. Layers that have them: ${data.source.rows.layers.join(", ")}.`;
        wrapper.hidden = !data.hasRows(state.layer);
        legend.replaceChildren(weightLegend(state.view === "difference", leastWeightShown));
        draw();
    });
    onThemeChange(draw);
    new ResizeObserver(() => {
        if (Math.abs(Math.max(Math.min(wrapper.clientWidth, largestSide), 200) - side) > 1)
            draw();
    }).observe(wrapper);

    return element("section", {"aria-labelledby": "token-map-title"},
        element("h2", {id: "token-map-title"}, "Tokens by tokens"),
        heading,
        element("div", {class: "controls"}, ...buttons, range),
        legend,
        wrapper,
        element("p", {class: "quiet"}, "Click pins a query, dragging moves, Ctrl and the wheel zoom. By keyboard: arrows (with Shift: by ten), +, −, Enter."));
}

/** The colours from -1 to 1, as pixels. */
function paletteOf(color: (position: number) => string): Uint32Array {
    const bytes = new Uint8ClampedArray((2 * colorSteps + 1) * 4);
    for (let i = 0; i <= 2 * colorSteps; i++) {
        const {r, g, b} = parseColor(color((i - colorSteps) / colorSteps))!.rgb();
        bytes.set([r, g, b, 255], i * 4);
    }
    return new Uint32Array(bytes.buffer);
}

/** 1, 2 or 5 times a power of ten, at least the given. */
function niceStep(least: number): number {
    const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) ?? power * 10;
}
