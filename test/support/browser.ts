import fs from "node:fs";
import process from "node:process";
import {pathToFileURL} from "node:url";
import test from "ava";
import {chromium} from "playwright-core";
import type {ExecutionContext} from "ava";
import type {Browser, BrowserContextOptions, Page} from "playwright-core";

/** Nothing is installed for a test: the browser is Debian's package `chromium`, or what CHROMIUM names. */
const executablePath = [process.env["CHROMIUM"], "/usr/bin/chromium"].find((file) => file != null && fs.existsSync(file));

let browser: Promise<Browser> | undefined;

export type OpenPage = {
    page: Page,

    /** what the page said on the console or threw */
    complaints: string[],

    /** every request but that for the file itself */
    requests: string[]
};

/** A test with headless Chromium. Where there is none it is skipped, and says so; in CI, which installs it, that is a failure. */
export function testInBrowser(title: string, run: (t: ExecutionContext) => Promise<void>): void {
    if (executablePath == null && process.env["CI"] == null) {
        console.warn(`skipped "${title}": no chromium here (on Debian: apt-get install chromium; or set CHROMIUM)`);
        test.skip(`${title} [skipped: no chromium here]`, run);
    } else
        test.serial(title, run);
}

/** Opens a file as a user would by a double click. At the end of the test it fails if there was any complaint or request. */
export async function openFile(t: ExecutionContext, file: string, options: BrowserContextOptions = {}): Promise<OpenPage> {
    browser ??= chromium.launch({executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]});
    const context = await (await browser).newContext({viewport: {width: 1280, height: 900}, ...options});
    const page = await context.newPage();
    const url = pathToFileURL(file).href;
    const opened: OpenPage = {page, complaints: [], requests: []};

    page.on("console", (message) => opened.complaints.push(message.text()));
    page.on("pageerror", (error) => opened.complaints.push(String(error)));
    page.on("request", (request) => {
        // what the page made itself, in memory, is no request to anyone
        if (request.url().split("#")[0] !== url && !/^(blob|data):/.test(request.url()))
            opened.requests.push(request.url());
    });
    t.teardown(async () => {
        await context.close();
        // by now the test is over, so it can't assert; an error fails it
        if (opened.complaints.length + opened.requests.length > 0)
            throw new Error(`the page complained or made requests: ${JSON.stringify([opened.complaints, opened.requests])}`);
    });

    await page.goto(url);
    return opened;
}

test.after.always("close the browser", async () => {
    await (await browser)?.close();
});
