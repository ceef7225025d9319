import {axisX, axisY, dot, gridY, line, plot, text} from "@observablehq/plot";
import {parseHTML} from "linkedom";

const panelWidth = 440;
const panelHeight = 270;
const titleHeight = 44;

const colors = {off: "#767676", record: "#b35806", boost: "#2166ac"};

/** @returns {string} SVG with two panels: what is added by context and by keys per row */
export function drawGrowth({byContext, byKeys}) {
    const {document} = parseHTML("<!doctype html><html><body></body></html>");
    const common = {
        document,
        width: panelWidth,
        height: panelHeight,
        marginLeft: 52,
        marginRight: 14,
        marginTop: 24,
        marginBottom: 40,
        style: {fontFamily: "system-ui, sans-serif", fontSize: "12px"}
    };

    const series = [
        {name: "off", label: "the attention itself", of: ({off}) => off, labelAt: 2, dy: -13},
        {name: "record", label: "+ recording, in the source layer", of: ({off, record}) => record - off, labelAt: 2, dy: -13},
        {name: "boost", label: "+ boosting, in each later layer", of: ({off, boost}) => boost - off, labelAt: 4, dy: 16}
    ];
    const contextPanel = plot({
        ...common,
        x: {type: "log", base: 2},
        y: {type: "log", domain: [100, 2e7]},
        marks: [
            gridY({ticks: 5}),
            axisX({ticks: byContext.map(({cells}) => cells), tickFormat: formatTokens, label: "tokens in the context"}),
            axisY({ticks: 5, tickFormat: formatCount, label: "instructions per row"}),
            ...series.flatMap(({name, label, of, labelAt, dy}) => {
                const points = byContext.map((point) => ({x: point.cells, y: of(point)}));
                const options = {x: "x", y: "y", stroke: colors[name]};
                return [
                    line(points, options),
                    dot(points, {...options, fill: colors[name], r: 2.5}),
                    text([points[labelAt]], {x: "x", y: "y", text: [label], fill: colors[name], textAnchor: "end", dy})
                ];
            })
        ]
    });

    const added = byKeys.map(({keys, off, boost}) => ({x: keys, y: boost - off}));
    const keysPanel = plot({
        ...common,
        x: {domain: [0, 100]},
        y: {domain: [0, Math.max(...added.map(({y}) => y)) * 1.1]},
        marks: [
            gridY({ticks: 5}),
            axisX({ticks: byKeys.map(({keys}) => keys), label: `keys per row, at ${formatTokens(byKeys[0].cells)} tokens`}),
            axisY({ticks: 5, tickFormat: formatCount, label: "instructions per row"}),
            line(added, {x: "x", y: "y", stroke: colors.boost}),
            dot(added, {x: "x", y: "y", stroke: colors.boost, fill: colors.boost, r: 2.5})
        ]
    });

    const panels = [
        {title: "Next to the attention, boosting stays small,", panel: contextPanel},
        {title: "and grows with the keys of a row, at most 99", panel: keysPanel}
    ];
    const width = panels.length * panelWidth;
    const height = titleHeight + panelHeight;
    return [
        `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`,
        `<rect width="${width}" height="${height}" fill="white"/>`,
        ...panels.map(({title, panel}, i) => [
            `<g transform="translate(${i * panelWidth} 0)">`,
            `<text x="14" y="26" font-family="system-ui, sans-serif" font-size="15" font-weight="600">${title}</text>`,
            `<g transform="translate(0 ${titleHeight})">${panel.outerHTML}</g>`,
            "</g>"
        ].join("\n")),
        "</svg>",
        ""
    ].join("\n");
}

function formatTokens(cells) {
    return cells < 1024
        ? String(cells)
        : `${cells / 1024}k`;
}

function formatCount(instructions) {
    if (instructions >= 1e6)
        return `${instructions / 1e6}M`;
    return instructions >= 1e3
        ? `${instructions / 1e3}k`
        : String(instructions);
}
