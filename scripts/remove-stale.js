#!/usr/bin/env node
// Removes from dist what no source stands for any more. All the rest stays where it is, as another process may be running it.
import fs from "node:fs";
import path from "node:path";
import {parseArgs} from "node:util";
import {listFiles} from "./lib/files.js";
import {packageRoot} from "./lib/paths.js";

const {positionals: [root = packageRoot]} = parseArgs({allowPositionals: true});

for (const file of listFiles(path.join(root, "dist"))) {
    const name = file.replace(/\.(js\.map|js|d\.ts|css)$/, "");
    // build-pages.js bundles each page's folder
    const source = name.startsWith("pages/")
        ? path.join(name, "main.ts")
        : `${name}.ts`;
    if (!fs.existsSync(path.join(root, "src", source)))
        fs.rmSync(path.join(root, "dist", file));
}
