#!/usr/bin/env node
import process from "node:process";
import {parseArgs} from "node:util";
import {listFiles} from "./lib/files.js";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain} from "./lib/main.js";
import {overlayFolder, patchesFolder} from "./lib/paths.js";
import {readSeries} from "./lib/series.js";
import {prepareSource} from "./lib/source.js";

const usage = `usage: prepare-source [--discard]

Unpacks the llama.cpp that comes with node-llama-cpp to native/build/source/llama.cpp, applies node-llama-cpp's own patch,
then native/patches in their order, then lays native/overlay over it. Does only what is not done yet.

  --discard   drop edits made in the tree`;

await runMain("prepare-source", async () => {
    const {discard} = readArguments();
    const done = await withBuildLock(() => prepareSource({discard}));
    console.error(done
        ? `llama.cpp is prepared: ${readSeries(patchesFolder).length} patches, ${listFiles(overlayFolder).length} overlay files`
        : "llama.cpp is prepared already");
});

function readArguments() {
    try {
        const {values} = parseArgs({options: {discard: {type: "boolean"}, help: {type: "boolean", short: "h"}}});
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }
        return values;
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
