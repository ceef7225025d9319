#!/usr/bin/env node
// Bundles what runs in browsers: src/pages/NAME/main.ts and its styles become dist/pages/NAME.js and NAME.css, which src/htmlPage.ts puts
// into one file. The licences of the libraries in a bundle stand in front of it.
import fs from "node:fs";
import path from "node:path";
import {build} from "esbuild-wasm";
import {writeIfDifferent} from "./lib/files.js";
import {runMain, UserError} from "./lib/main.js";
import {packageRoot} from "./lib/paths.js";

const sourceFolder = path.join(packageRoot, "src", "pages");
const targetFolder = path.join(packageRoot, "dist", "pages");

await runMain("build-pages", async () => {
    const names = fs.readdirSync(sourceFolder).filter((name) => fs.existsSync(path.join(sourceFolder, name, "main.ts")));
    for (const name of names)
        await buildPage(name);
});

async function buildPage(name) {
    const {outputFiles, metafile} = await build({
        entryPoints: {[name]: path.join(sourceFolder, name, "main.ts")},
        outdir: targetFolder,
        absWorkingDir: packageRoot,
        bundle: true,
        minify: true,
        format: "iife",
        // the first ones with everything that the pages use; light-dark() in CSS came last
        target: ["chrome123", "firefox120", "safari17.5"],
        legalComments: "none",
        write: false,
        metafile: true
    });

    const contained = Object.values(metafile.outputs).flatMap(({inputs}) => (
        Object.entries(inputs).filter(([, {bytesInOutput}]) => bytesInOutput > 0).map(([file]) => file)
    ));
    const notices = collectNotices(contained);
    for (const {path: file, text} of outputFiles) {
        const content = file.endsWith(".js")
            ? `/*!\n${notices}\n*/\n${text}`
            : text;
        writeIfDifferent(file, content);
    }
}

/** The licence texts of all packages that the given files come from, each text once. */
function collectNotices(files) {
    // by name; the folder is elsewhere where node_modules is a link
    const packages = new Map(files.map((file) => /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)(?=\/)/.exec(file))
        .filter((match) => match != null)
        .map(([folder, name]) => [name, path.join(packageRoot, folder)]));
    const acknowledged = fs.readFileSync(path.join(packageRoot, "THIRD-PARTY-NOTICES.md"), "utf8");

    const namesByText = new Map();
    for (const [name, folder] of [...packages].sort(([a], [b]) => a < b ? -1 : 1)) {
        if (!acknowledged.includes(`[${name}]`))
            throw new UserError(`a page contains ${name}, which THIRD-PARTY-NOTICES.md doesn't name`);

        const file = fs.readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
        if (file == null)
            throw new UserError(`${name} has no licence file to ship with the page`);
        const text = fs.readFileSync(path.join(folder, file), "utf8").trim().replaceAll("*/", "* /");
        namesByText.set(text, [...namesByText.get(text) ?? [], name]);
    }
    return [...namesByText].map(([text, names]) => `${names.join(", ")}\n\n${text}`).join("\n\n----\n\n");
}
