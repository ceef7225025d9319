#!/usr/bin/env node
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import {parseArgs} from "node:util";
import {listFiles, writeIfDifferent} from "./lib/files.js";
import {git, gitLines} from "./lib/git.js";
import {withBuildLock} from "./lib/lock.js";
import {badUsage, runMain, UserError} from "./lib/main.js";
import {overlayFolder, patchesFolder, sourceFolder} from "./lib/paths.js";
import {formatPatch, patchFileName} from "./lib/series.js";
import {acceptTree, commitInputs, editedOnBothSides, layEditsOfOverlay, prepareSource, readState} from "./lib/source.js";

const usage = `usage: refresh-patches [--force] [TREE]

Writes native/patches and native/overlay anew from an edited llama.cpp tree; without TREE, native/build/source/llama.cpp.

Each commit since node-llama-cpp's own patch becomes one patch; its message becomes the patch's header, which says why.
Every file that llama.cpp does not have, committed or not, goes to native/overlay. So: edit, then
  git commit                        for a new patch
  git commit --fixup, rebase -i     for a change to a patch that is there
and run this. Sources of ours need no commit.

  --force   where a file was edited both in the tree and in native/overlay, take the tree's`;

const sourceFile = /(^|\/)CMakeLists\.txt$|\.(c|cc|cpp|h|hpp|cu|cuh|m|metal|comp|glsl|cmake)$/;

await runMain("refresh-patches", async () => {
    const {force, tree} = readArguments();
    await withBuildLock(() => refresh(tree, force));
});

function refresh(tree, force) {
    const ownTree = path.resolve(tree) === path.resolve(sourceFolder);
    if (readState()?.complete !== true)
        prepareSource();
    const state = readState();

    const base = findBase(tree, state.base);
    refuseUncommitted(tree);
    if (ownTree && !force)
        refuseEditsOnBothSides(state);
    if (ownTree)
        layEditsOfOverlay(state);

    const {overlay, skipped} = overlayFiles(tree, base);
    const patches = [];
    for (const commit of gitLines(tree, ["rev-list", "--reverse", `${base}..HEAD`])) {
        const text = formatPatch(tree, commit, overlay);
        if (text != null)
            patches.push({name: patchFileName(tree, commit, patches.length + 1), text});
    }

    const changed = [
        ...replaceFiles(patchesFolder, patches.map(({name, text}) => [name, text]), (name) => name.endsWith(".patch")),
        ...replaceFiles(overlayFolder, overlay.map((file) => [file, fs.readFileSync(path.join(tree, file))]), () => true)
    ];

    const commits = commitInputs();
    checkSame(tree, overlay, commits.head);
    if (ownTree)
        acceptTree(commits);

    for (const file of skipped)
        console.error(`left out, as it is no source file: ${file}`);
    for (const file of changed)
        console.error(`changed: ${path.relative(process.cwd(), file)}`);
    console.error(`${patches.length} patches, ${overlay.length} overlay files, ${changed.length} of them changed`);
}

/** The commit in the tree with the same files as ours after node-llama-cpp's own patch. */
function findBase(tree, ownBase) {
    const wanted = git(sourceFolder, ["rev-parse", `${ownBase}^{tree}`]).trim();
    for (const line of gitLines(tree, ["log", "--format=%H %T"])) {
        const [commit, files] = line.split(" ");
        if (files === wanted)
            return commit;
    }
    throw new UserError(
        `${tree} has no commit with llama.cpp as node-llama-cpp patches it, on which the series starts. ` +
        "Begin with a copy of native/build/source/llama.cpp."
    );
}

function refuseUncommitted(tree) {
    const files = gitLines(tree, ["diff", "--name-only", "HEAD"]);
    if (files.length > 0)
        throw new UserError(`changes to llama.cpp's own files are not committed, so no patch has them yet:\n${files.map((file) => `  ${file}`).join("\n")}`);
}

function refuseEditsOnBothSides(state) {
    const files = editedOnBothSides(state);
    if (files.length > 0)
        throw new UserError(`edited both in the tree and in native/overlay (--force takes the tree's):\n${files.map((file) => `  ${file}`).join("\n")}`);
}

/** Files that llama.cpp does not have, whether committed since the base or not. */
function overlayFiles(tree, base) {
    const own = new Set([
        ...gitLines(tree, ["diff", "--name-only", "--diff-filter=A", "--no-renames", base, "HEAD"]),
        ...gitLines(tree, ["ls-files", "--others", "--exclude-standard"])
    ]);
    const files = [...own].filter((file) => fs.existsSync(path.join(tree, file))).sort();
    return {
        overlay: files.filter((file) => sourceFile.test(file)),
        skipped: files.filter((file) => !sourceFile.test(file))
    };
}

/** Makes a folder's files the given ones; returns the paths of those that were written or removed. */
function replaceFiles(folder, files, isOurs) {
    const names = new Set(files.map(([name]) => name));
    const outdated = listFiles(folder).filter((name) => isOurs(name) && !names.has(name)).map((name) => path.join(folder, name));
    outdated.forEach((file) => fs.rmSync(file));

    const written = files.filter(([name, content]) => writeIfDifferent(path.join(folder, name), content));
    return [...outdated, ...written.map(([name]) => path.join(folder, name))];
}

/** What was written must give the tree that it was read from. */
function checkSame(tree, overlay, head) {
    const own = new Set(overlay);
    const files = (folder, commit) => gitLines(folder, ["ls-tree", "-r", commit])
        .filter((line) => !own.has(line.slice(line.indexOf("\t") + 1)))
        .join("\n");
    if (files(tree, "HEAD") !== files(sourceFolder, head))
        throw new Error(`the series that was written does not give the files of ${tree}`);
}

function readArguments() {
    try {
        const {values, positionals} = parseArgs({
            allowPositionals: true,
            options: {force: {type: "boolean", default: false}, help: {type: "boolean", short: "h"}}
        });
        if (values.help) {
            console.log(usage);
            process.exit(0);
        }
        if (positionals.length > 1)
            throw new Error(`one TREE at most, but there are ${positionals.length}`);

        const tree = positionals[0] ?? sourceFolder;
        if (positionals.length === 1 && !fs.existsSync(path.join(tree, ".git")))
            throw new Error(`${tree} is no git tree`);
        return {force: values.force, tree};
    } catch (error) {
        return badUsage(error.message, usage);
    }
}
