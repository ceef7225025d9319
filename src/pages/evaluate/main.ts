import "../shared/base.css";
import "./style.css";
import {
    armTable, controlTable, divergenceTable, filesOf, generationTable, notesFor, partTable, perplexityTable, subtitleOf, titleOf,
    titleOfReport, verdicts
} from "../../evaluate/report.js";
import {readPageData} from "../shared/data.js";
import {choiceButtons, element} from "../shared/dom.js";
import {themeButton} from "../shared/theme.js";
import {accuracyChart, differenceChart, partChart, perplexityChart} from "./charts.js";
import type {EvaluationReport} from "../../evaluate/report.js";
import type {MetricSummary} from "../../evaluate/summary.js";

const report = readPageData<EvaluationReport>();
const page = document.getElementById("page")!;

page.append(
    element("header", {}, element("h1", {}, titleOfReport(report)), themeButton()),
    element("p", {class: "quiet"}, subtitleOf(report)),
    element("ul", {class: "verdicts"}, ...verdicts(report).map((verdict) => element("li", {}, verdict))),
    ...metricSections(report.metrics),
    ...report.generation == null ? [] : [
        element("section", {}, element("h2", {}, "What was written"), table(generationTable(report.generation)))
    ],
    ...report.perplexity == null ? [] : [
        element("section", {},
            element("h2", {}, "Perplexity"),
            ...report.perplexity.length > 1 ? [figure("Perplexity against plain, with 95 % intervals", perplexityChart(report.perplexity))] : [],
            table(perplexityTable(report.perplexity)),
            ...report.perplexity.length > 1 ? [element("h3", {}, "Divergence from plain"), table(divergenceTable(report.perplexity))] : [])
    ],
    element("div", {class: "quiet notes"}, ...notesFor(report).map((note) => element("p", {class: "quiet"}, note))),
    aboutSection()
);

/** One metric at a time, where there are two. */
function metricSections(metrics: readonly MetricSummary[]): Node[] {
    const [first] = metrics;
    if (first == null)
        return [];

    const place = element("div");
    const show = (metric: MetricSummary) => place.replaceChildren(...metricSection(metric));
    show(first);
    if (metrics.length === 1)
        return [place];

    const choices = metrics.map(({metric}) => ({value: metric, label: metric}));
    const buttons = choiceButtons("metric", choices, first.metric, (name) => show(metrics.find(({metric}) => metric === name)!));
    return [element("div", {}, buttons), place];
}

function metricSection(metric: MetricSummary): Node[] {
    const {arms, controls, groups, subjects} = metric;
    const compared = arms.length > 1;
    return [
        element("section", {},
            element("h2", {}, titleOf(metric)),
            figure("Accuracy of each arm, with 95 % intervals", accuracyChart(arms)),
            ...compared ? [figure("Difference to plain, in points, with 95 % intervals", differenceChart(arms))] : [],
            table(armTable(arms))),
        ...controls.length > 0
            ? [element("section", {},
                element("h2", {}, "The pattern against its controls"),
                element("p", {class: "quiet"}, "Only a difference to an arm of the same strength without the pattern is the pattern's."),
                table(controlTable(controls)))]
            : [],
        ...[{title: "By group", parts: groups}, {title: "By subject", parts: subjects}]
            .filter(({parts}) => parts.length > 1)
            .map(({title, parts}) => element("section", {},
                element("h2", {}, title),
                ...compared ? [figure("Difference to plain, in points, with 95 % intervals", partChart(parts))] : [],
                table(partTable(parts))))
    ];
}

function aboutSection(): Node {
    const {settings, badRows, leftOut} = report;
    return element("section", {},
        element("h2", {}, "About this run"),
        table([
            ["arm", "options"],
            ...settings.arms.map(({name, emulation}) => [name, emulation == null ? "the model as it is" : JSON.stringify(emulation)])
        ], "hash"),
        element("p"),
        table([["file", "SHA-256"], ...filesOf(report).map(({file, sha256}) => [file, sha256])], "hash"),
        element("p"),
        element("p", {}, `Rows of the data that are no items: ${badRows.length}. Items that could not be evaluated: ${leftOut.length}.`),
        ...badRows.length + leftOut.length === 0 ? [] : [
            element("details", {},
                element("summary", {}, "Which ones"),
                element("ul", {},
                    ...badRows.map(({file, line, problem}) => element("li", {}, `${file}, line ${line}: ${problem}`)),
                    ...leftOut.map(({item, reason}) => element("li", {}, `${item}: ${reason}`))))
        ]);
}

function figure(caption: string, chart: Node): HTMLElement {
    return element("figure", {}, element("figcaption", {class: "quiet"}, caption), chart);
}

/** @param lastClass - of the last column, where that is text */
function table([head = [], ...rows]: string[][], lastClass?: string): HTMLElement {
    const alignment = (index: number) => index === 0
        ? "left"
        : lastClass != null && index === head.length - 1
            ? `left ${lastClass}`
            : undefined;
    return element("div", {class: "table-scroll", tabindex: 0, role: "region", "aria-label": head.join(", ")},
        element("table", {class: "data"},
            element("thead", {}, element("tr", {}, ...head.map((text, index) => element("th", {scope: "col", class: alignment(index)}, text)))),
            element("tbody", {}, ...rows.map((row) => element("tr", {},
                ...row.map((text, index) => element(index === 0 ? "th" : "td", {class: alignment(index)}, text)))))));
}
