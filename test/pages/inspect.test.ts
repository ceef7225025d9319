import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {renderHtmlReport} from "#dist/inspect/htmlReport.js";
import {openFile, testInBrowser} from "../support/browser.js";
import {syntheticInspection} from "../support/syntheticInspection.js";
import type {ExecutionContext} from "ava";
import type {BrowserContextOptions, Page} from "playwright-core";
import type {Inspection} from "#dist/inspect/inspection.js";

let folder: string;

test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
});
test.after.always(() => fs.rm(folder, {recursive: true}));

async function openReport(t: ExecutionContext, inspection: Inspection, options: BrowserContextOptions = {}): Promise<Page> {
    const file = path.join(folder, `${t.title.replace(/\W+/g, "-")}.html`);
    await fs.writeFile(file, await renderHtmlReport(inspection));
    const {page} = await openFile(t, file, options);
    await page.waitForSelector("html[data-ready]");
    return page;
}

const small = {tokens: 60, layers: 6, heads: 4, topK: 16};

testInBrowser("the page shows what was captured, to three digits", async (t) => {
    const inspection = syntheticInspection(small);
    const {plain, steered, rows} = inspection;
    const page = await openReport(t, inspection);
    const [layer, head, query] = [2, 3, 40];

    t.is(await page.getByRole("img", {name: /over depth: layer 0: plain .*; layer 5: plain /}).count(), 4);
    await page.getByLabel("Measure").selectOption("firstTokenMass");
    const cell = page.getByRole("gridcell", {name: `layer ${layer}, head ${head}:`});
    const at = layer * small.heads + head;
    const label = await cell.getAttribute("aria-label") ?? "";
    isClose(t, /plain: ([\d.]+) %/.exec(label)?.[1], plain.firstTokenMass[at]! * 100);
    isClose(t, /steered: ([\d.]+) %/.exec(label)?.[1], steered.firstTokenMass[at]! * 100);

    await cell.click();
    await page.locator(`[data-token="${query}"]`).click();
    const strongest = (at * small.tokens + query) * small.topK;
    const key = rows.plain.topKeys[strongest]!;
    const row = page.locator(".details tbody tr").filter({has: page.locator(`td:nth-child(2):text-is("${key}")`)});
    isClose(t, (await row.locator("td").nth(1).textContent())?.replace(" %", ""), rows.plain.topWeights[strongest]! * 100);

    const received = plain.received[at * small.tokens + query]! * 100;
    const description = await page.locator(".details p").first().textContent() ?? "";
    isClose(t, /average: plain ([\d.]+) %/.exec(description)?.[1], received);
    t.true(description.includes(`for ${plain.receivedBy[at * small.tokens + query]} queries plain`), description);
});

testInBrowser("plain, steered and difference, layer and head are chosen, and everything follows", async (t) => {
    const page = await openReport(t, syntheticInspection(small));
    const colors = async () => await page.locator("[role=gridcell]").evaluateAll((cells) => (
        cells.map((cell) => (cell as unknown as {style: {backgroundColor: string}}).style.backgroundColor).join()
    ));
    const shading = async () => await page.locator(".token").evaluateAll((tokens) => (
        tokens.map((token) => (token as unknown as {style: {backgroundColor: string}}).style.backgroundColor).join()
    ));
    const map = async () => await page.locator(".token-map canvas").evaluate((canvas) => (
        (canvas as unknown as {toDataURL(): string}).toDataURL()
    ));

    const plain = {colors: await colors(), shading: await shading(), map: await map()};
    await page.getByRole("radio", {name: "Difference"}).check({force: true});
    const difference = {colors: await colors(), shading: await shading(), map: await map()};
    t.not(difference.colors, plain.colors);
    t.not(difference.shading, plain.shading);
    t.not(difference.map, plain.map);

    await page.getByRole("radio", {name: "Plain"}).check({force: true});
    t.deepEqual({colors: await colors(), shading: await shading(), map: await map()}, plain);

    await page.getByLabel("Layer", {exact: true}).selectOption("5");
    await page.getByLabel("Head", {exact: true}).selectOption("2");
    t.not(await shading(), plain.shading);
    t.not(await map(), plain.map);
    t.is(await page.locator("[aria-selected=true]").getAttribute("aria-label").then((label) => label?.slice(0, 15)), "layer 5, head 2");
    t.true((await page.getByText("Shaded by").textContent())?.includes("layer 5, head 2"));
});

testInBrowser("everything can be done by keyboard, and the focus can be seen", async (t) => {
    const page = await openReport(t, syntheticInspection(small));
    const focused = async () => await page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent");
    const isFocusVisible = async () => await page.evaluate(
        "(getComputedStyle(document.activeElement.matches('.choice input') ? document.activeElement.nextElementSibling : document.activeElement)).outlineStyle"
    );

    const stops: unknown[] = [];
    for (let i = 0; i < 40; i++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate("document.activeElement === document.body"))
            break;
        stops.push(await focused());
        t.not(await isFocusVisible(), "none", String(stops.at(-1)));
    }
    const all = stops.join("\n");
    for (const expected of ["Dark colours", "layer 3, head 0", "<s>", "Tokens by tokens", "Zoom in", "all layers", "pin “"])
        t.true(all.includes(expected), `${expected} is not among the stops:\n${all}`);

    await page.locator("[role=gridcell][tabindex='0']").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    t.true(String(await focused()).startsWith("layer 4, head 1"));
    await page.keyboard.press("Enter");
    t.is(await page.getByLabel("Layer", {exact: true}).inputValue(), "4");
    t.is(await page.getByLabel("Head", {exact: true}).inputValue(), "1");

    await page.locator(".token[tabindex='0']").focus();
    for (let i = 0; i < 5; i++)
        await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    t.is(await page.locator(".token[aria-pressed=true]").getAttribute("data-token"), "5");
    t.true((await page.locator("[role=status]").textContent())?.includes("token 5"));
    await page.keyboard.press("Escape");
    t.is(await page.locator(".token[aria-pressed=true]").count(), 0);

    const canvas = page.locator(".token-map canvas");
    await canvas.focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowRight");
    const status = await page.locator("[role=status]").textContent() ?? "";
    t.true(status.includes("token 4;") && status.includes("token 1;"), status);
    await page.keyboard.press("+");
    t.regex(await page.locator(".token-map").locator("xpath=..").locator(".controls").textContent() ?? "", /queries 2 to 31, keys 1 to 30/);
    await page.keyboard.press("Enter");
    t.is(await page.locator(".token[aria-pressed=true]").getAttribute("data-token"), "4");
});

testInBrowser("1,000 tokens, 32 layers and 32 heads make less than 20 MB, and are there in seconds", async (t) => {
    const inspection = syntheticInspection({tokens: 1000, layers: 32, heads: 32, topK: 8});
    const file = path.join(folder, "large.html");
    await fs.writeFile(file, await renderHtmlReport(inspection));
    const {size} = await fs.stat(file);
    t.true(size < 20e6, `${size} bytes`);

    const start = performance.now();
    const {page} = await openFile(t, file);
    await page.waitForSelector("html[data-ready]");
    const seconds = (performance.now() - start) / 1000;
    t.log(`${(size / 1e6).toFixed(1)} MB, ready after ${seconds.toFixed(1)} s`);
    t.true(seconds < 30, `${seconds} s`); // 2 s where nothing else runs

    t.true((await page.locator("header").textContent())?.includes("of the layers (0, "), "the page doesn't say what it left out");
    // a layer whose rows were left out says so, and shows the rest
    const withoutRows = await page.locator("option", {hasText: "(no rows)"}).first().getAttribute("value");
    await page.getByLabel("Layer", {exact: true}).selectOption(withoutRows);
    t.true(await page.getByText("were left out of this file").first().isVisible());
    t.is(await page.evaluate("document.documentElement.scrollWidth"), 1280);
});

testInBrowser("a hostile text harms nothing", async (t) => {
    const texts = [
        "</script><script>document.title='broken'</script>", "<!--", "<script>", "]]>", "<img src=x onerror=\"document.title='broken'\">",
        "\u2028", "\u2029", "\u202e", "\u2066", "\ud800", "\u0000", "\u001b[31m", "&lt;", "`${document.title='broken'}`", "\u05d0\u05d1", "\n"
    ];
    const inspection = syntheticInspection({...small, texts});
    inspection.model.name = "</title><script>document.title='broken'</script>\u202e";
    const page = await openReport(t, inspection);

    t.is(await page.title(), `Attention of ${inspection.model.name}`);
    t.is(await page.locator(".token img, .token script, #page script").count(), 0);
    const shown = await page.locator(".token").allTextContents();
    t.deepEqual(shown.slice(1, texts.length + 1), [
        ...texts.slice(0, 5), "⟨2028⟩", "⟨2029⟩", "⟨202E⟩", "⟨2066⟩", "⟨D800⟩", "⟨0000⟩", "⟨001B⟩[31m", ...texts.slice(12, 15), "↵"
    ]);

    const source = await fs.readFile(path.join(folder, `${t.title.replace(/\W+/g, "-")}.html`), "utf8");
    // line separators, marks of direction, and control characters but for line breaks and tabs
    t.notRegex(source, /[\u2028\u2029\u202a-\u202e\u2066-\u2069]|(?![\n\r\t])\p{Cc}/u);
});

testInBrowser("nothing is cut off on a narrow screen, in light colours and dark ones", async (t) => {
    for (const colorScheme of ["light", "dark"] as const) {
        const page = await openReport(t, syntheticInspection(small), {viewport: {width: 360, height: 740}, colorScheme});
        t.is(await page.evaluate("document.documentElement.scrollWidth"), 360);

        const background = await page.evaluate("getComputedStyle(document.body).backgroundColor");
        t.is(background, colorScheme === "light" ? "rgb(255, 255, 255)" : "rgb(20, 22, 26)");
        await page.getByRole("button", {name: / colours$/}).click();
        t.not(await page.evaluate("getComputedStyle(document.body).backgroundColor"), background);
    }
});

/** To what three digits and the page's logarithmic levels can tell. */
function isClose(t: ExecutionContext, text: string | undefined, value: number): void {
    t.true(Math.abs(Number(text) / value - 1) < 0.008, `the page says ${text}, where ${value} was captured`);
}
