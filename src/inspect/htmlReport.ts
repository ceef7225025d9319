import {renderHtmlPage} from "../htmlPage.js";
import {packInspection} from "./packInspection.js";
import type {Inspection} from "./inspection.js";

/** An inspection as one HTML file, see src/pages/inspect. */
export async function renderHtmlReport(inspection: Inspection): Promise<string> {
    const {model, options, tokens} = inspection;
    return await renderHtmlPage({
        page: "inspect",
        title: `Attention of ${model.name}`,
        summary: `${model.name}, ${model.layers} layers of ${model.heads} heads, on a text of ${tokens.length} tokens, plain and with a strength of `
            + `${options.strength}.`,
        data: await packInspection(inspection)
    });
}
