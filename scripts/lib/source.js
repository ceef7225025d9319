// llama.cpp's source tree: the pinned bundle, node-llama-cpp's own patch, our series, our overlay.
import fs from "node:fs";
import path from "node:path";
import {hash, hashFile, listFiles, readIfThere, writeIfDifferent} from "./files.js";
import {git, gitLines} from "./git.js";
import {UserError} from "./main.js";
import {nodeLlamaCppFolder, overlayFolder, patchesFolder, sourceFolder} from "./paths.js";
import {commitSeries, readSeries} from "./series.js";

const stateFile = path.join(sourceFolder, ".git", "reattend.json");

/**
 * Makes the source tree what bundle, series and overlay say. Only files whose content changes are written, so that a
 * compile stays incremental. Edits made in the tree stay as long as nothing would overwrite them.
 * @param {{discard?: boolean}} [options] discard: drop edits made in the tree
 * @returns {boolean} whether anything had to be done
 */
export function prepareSource({discard = false} = {}) {
    const inputs = readInputs();
    const state = readState();
    if (!discard && state?.complete && JSON.stringify(state.inputs) === JSON.stringify(inputs))
        return false;

    const {base, head} = commitInputs();
    refuseOverlayOfUpstream(head, Object.keys(inputs.overlay));

    // where a run was broken off, what differs is its own half-done work: it had found no edits
    if (state?.complete && !discard)
        refuseToOverwriteEdits(state, inputs, head);

    const laid = {...state?.inputs.overlay, ...inputs.overlay};
    writeState({complete: false, base, head, inputs: {...inputs, overlay: laid}});
    for (const file of Object.keys(laid).filter((file) => !(file in inputs.overlay)))
        fs.rmSync(path.join(sourceFolder, file), {force: true});
    if (discard || !state?.complete || state.head !== head)
        git(sourceFolder, ["reset", "--quiet", "--hard", head]);
    for (const file of Object.keys(inputs.overlay)) {
        if (discard || !state?.complete || state.inputs.overlay[file] !== inputs.overlay[file])
            writeIfDifferent(path.join(sourceFolder, file), fs.readFileSync(path.join(overlayFolder, file)));
    }
    writeState({complete: true, base, head, inputs});
    return true;
}

/**
 * What the tree was last made from: `base`, the commit that our series starts on, `head`, the one it ends with, and the
 * hashes of the inputs. It lies in the tree, so that both go together.
 */
export function readState() {
    const text = readIfThere(stateFile);
    return text == null
        ? undefined
        : JSON.parse(text);
}

/** Commits bundle and series in the tree's store; no file of the tree changes. */
export function commitInputs() {
    const {bundle, patches} = readUpstream();
    fs.mkdirSync(sourceFolder, {recursive: true});
    git(sourceFolder, ["init", "--quiet", "--initial-branch", "reattend"]);
    git(sourceFolder, ["config", "core.autocrlf", "false"]);
    git(sourceFolder, ["fetch", "--quiet", bundle, "+HEAD:refs/reattend/bundle"]);

    const base = commitSeries(sourceFolder, "refs/reattend/bundle", patches, "node-llama-cpp's llama/patches", ["--ignore-whitespace"]);
    const head = commitSeries(sourceFolder, base, readSeries(patchesFolder), "native/patches");
    return {base, head};
}

/** Declares the tree, as it is, to be what bundle, series and overlay now say. */
export function acceptTree({base, head}) {
    git(sourceFolder, ["reset", "--quiet", "--soft", head]);
    writeState({complete: true, base, head, inputs: readInputs()});
}

/** The tree's overlay files that were edited on both sides, here and in native/overlay, since they were laid. */
export function editedOnBothSides(state) {
    const {overlay} = readInputs();
    return changedFiles(state.inputs.overlay, overlay)
        .filter((file) => ![state.inputs.overlay[file], overlay[file], undefined].includes(hashFile(path.join(sourceFolder, file))));
}

/** Brings edits that were made in native/overlay only into the tree. */
export function layEditsOfOverlay(state) {
    const {overlay} = readInputs();
    for (const file of changedFiles(state.inputs.overlay, overlay)) {
        const inTree = path.join(sourceFolder, file);
        if (hashFile(inTree) !== state.inputs.overlay[file])
            continue;
        if (file in overlay)
            writeIfDifferent(inTree, fs.readFileSync(path.join(overlayFolder, file)));
        else
            fs.rmSync(inTree);
    }
}

function readUpstream() {
    const folder = path.join(nodeLlamaCppFolder(), "llama");
    const bundle = path.join(folder, "gitRelease.bundle");
    if (!fs.existsSync(bundle))
        throw new UserError(`llama.cpp's source is not where node-llama-cpp keeps it (${bundle}). Install the packages anew: \`npm ci\`.`);
    return {bundle, patches: readSeries(path.join(folder, "patches"))};
}

function readInputs() {
    const {bundle, patches} = readUpstream();
    return {
        bundle: hashFile(bundle),
        series: hash(JSON.stringify([patches, readSeries(patchesFolder)])),
        overlay: Object.fromEntries(listFiles(overlayFolder).map((file) => [file, hashFile(path.join(overlayFolder, file))]))
    };
}

function writeState(state) {
    fs.writeFileSync(stateFile, JSON.stringify(state, null, 4) + "\n");
}

function changedFiles(before, after) {
    return Object.keys({...before, ...after}).filter((file) => before[file] !== after[file]);
}

function refuseToOverwriteEdits(state, inputs, head) {
    const edited = editedOnBothSides(state);
    if (head !== state.head) {
        edited.push(...gitLines(sourceFolder, ["diff", "--name-only", "HEAD"]));
        const commits = gitLines(sourceFolder, ["log", "--format=commit %s", `${state.head}..HEAD`]);
        edited.push(...commits);
    }

    if (edited.length > 0)
        throw new UserError(
            `llama.cpp's tree in native/build/source has edits that this would overwrite:\n${edited.map((name) => `  ${name}`).join("\n")}\n` +
            "Keep them with `npm run refresh-patches`, or drop them with `npm run prepare-source -- --discard`."
        );
}

function refuseOverlayOfUpstream(head, overlayFiles) {
    if (overlayFiles.length === 0)
        return;
    const upstream = gitLines(sourceFolder, ["ls-tree", "-r", "--name-only", head, "--", ...overlayFiles]);
    if (upstream.length > 0)
        throw new UserError(`native/overlay holds only files of our own, but llama.cpp has these, too: ${upstream.join(", ")}. Change them with a patch.`);
}
