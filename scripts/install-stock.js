#!/usr/bin/env node
// Installs stock node-llama-cpp's prebuilt binary, where tests compare with it and it isn't there yet. As a dependency in package.json it
// would make `npm ci` fail on every other platform.
import {spawnSync} from "node:child_process";
import {packageRoot} from "./lib/paths.js";
import {isStockTested, stockPackage, whyNoStock} from "./lib/stock.js";

if (isStockTested() && whyNoStock() != null) {
    const {status, stderr, error} = spawnSync("npm", ["install", "--no-save", "--ignore-scripts", stockPackage()], {
        cwd: packageRoot,
        encoding: "utf8"
    });
    if (status !== 0) // the tests that need it say so by themselves
        console.error(`install-stock: ${stockPackage()} could not be installed, so nothing is compared with it: ` +
            (error?.message ?? stderr.trim().split("\n")[0]));
}
