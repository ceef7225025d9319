import {createHash} from "node:crypto";
import fs from "node:fs/promises";

export type HtmlPage = {
    /** a folder of src/pages, which is what runs in the browser */
    page: string,
    title: string,

    /** anything that JSON can hold; the page gets it from `readPageData` */
    data: unknown,

    /** a few sentences for where scripts don't run, such as an e-mail program's preview */
    summary: string
};

/** How every page begins, so that a later run knows a page of ours. */
export const pageMark = "<!doctype html>\n<!-- made by reattend -->\n";

/**
 * One file with everything in it: script, styles and data. It makes no request, and its policy forbids any.
 * @throws {Error} where the package was not built
 */
export async function renderHtmlPage({page, title, data, summary}: HtmlPage): Promise<string> {
    const [script, style] = await Promise.all([readAsset(`${page}.js`), readAsset(`${page}.css`)]);
    const policy = [
        "default-src 'none'",
        `script-src 'sha256-${createHash("sha256").update(script).digest("base64")}'`,
        "style-src 'unsafe-inline'", // charts bring style elements of their own
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'"
    ].join("; ");

    return `${pageMark}<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="reattend">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<noscript><h1>${escapeHtml(title)}</h1><p>${escapeHtml(summary)}</p><p>Open this file in a browser that runs scripts to see the charts.</p></noscript>
<main id="page"></main>
<script type="application/json" id="page-data">${scriptSafeJson(data)}</script>
<script>${script}</script>
</body>
</html>
`;
}

/**
 * JSON that stands in a script element, whatever strings are in it: nothing in it ends the element or begins a comment, and no character
 * changes the order or the lines in which an editor shows the file.
 */
export function scriptSafeJson(data: unknown): string {
    return JSON.stringify(data).replace(unsafeCharacters, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Markup, line separators, and what has no look of its own: controls, joiners, marks of direction */
const unsafeCharacters = /[<>&\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

function escapeHtml(text: string): string {
    return text.replace(/[<>&"'\p{C}]/gu, (character) => `&#${character.codePointAt(0)};`);
}

async function readAsset(name: string): Promise<string> {
    // an HTML parser turns other line ends into this one before the script's hash is taken
    return (await fs.readFile(new URL(`./pages/${name}`, import.meta.url), "utf8")).replace(/\r\n?/g, "\n");
}
