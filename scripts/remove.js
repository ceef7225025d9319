#!/usr/bin/env node
// Removes the given paths inside the package, on every platform alike.
import fs from "node:fs";
import path from "node:path";
import {packageRoot} from "./lib/paths.js";

for (const name of process.argv.slice(2))
    fs.rmSync(path.join(packageRoot, name), {recursive: true, force: true});
