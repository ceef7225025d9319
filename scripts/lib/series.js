// A patch series as files: a header (subject, empty line, why), then a plain diff without dates and hashes.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {git, tryGit} from "./git.js";
import {UserError} from "./main.js";

/** The patches of a folder, in their order. */
export function readSeries(folder) {
    if (!fs.existsSync(folder))
        return [];
    return fs.readdirSync(folder)
        .filter((name) => name.endsWith(".patch") || name.endsWith(".diff"))
        .sort()
        .map((name) => ({name, text: fs.readFileSync(path.join(folder, name), "utf8")}));
}

/** The commit message that a patch's header stands for; mail headers, as `git format-patch` writes them, are understood too. */
export function messageOf({name, text}) {
    const header = text.slice(0, Math.max(0, text.search(/^diff --git /m)))
        // the mark of format-patch before its list of files
        .replace(/^---\n[^]*/m, "")
        .replace(/^From [0-9a-f]{40} .*\n/, "")
        .replace(/^(From|Date|MIME-Version|Content-Type|Content-Transfer-Encoding): .*\n(?: .*\n)*/gm, "")
        .replace(/^Subject: ([^]*?)\n(?! )/m, (_, subject) => subject.replace(/\n /g, " ").replace(/^\[PATCH[^\]]*\] /, "") + "\n")
        .trim();
    return header === ""
        ? name
        : header;
}

/** Writes a commit as a patch file's text; `excluded` paths are left out. `undefined` where nothing remains. */
export function formatPatch(tree, commit, excluded) {
    const diff = git(tree, [
        "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false",
        "diff-tree", "-p", "-U1", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-commit-id", commit,
        "--", ".", ...excluded.map((file) => `:(exclude,literal)${file}`)
    ]);
    if (diff === "")
        return undefined;

    const message = git(tree, ["log", "-1", "--format=%B", commit]).trim();
    return `Subject: ${message}\n\n${diff.replace(/^index [0-9a-f]+\.\.[0-9a-f]+.*\n/gm, "")}`;
}

export function patchFileName(tree, commit, number) {
    const subject = git(tree, ["log", "-1", "--format=%f", commit]).trim();
    // a long one ends with a whole word
    const short = /^.{1,60}(?=-|$)/.exec(subject)?.[0] ?? subject.slice(0, 60);
    return `${String(number).padStart(4, "0")}-${short.replace(/[-.]+$/, "")}.patch`;
}

/**
 * Applies a series on top of a commit, each patch as a commit, and returns the last one. Only git's own store is
 * written to: whatever fails, no file of the tree has changed.
 * @param label the folder as messages name it
 */
export function commitSeries(repository, base, series, label, applyOptions = []) {
    const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-"));
    const env = {GIT_INDEX_FILE: path.join(scratch, "index")};
    try {
        let head = base;
        git(repository, ["read-tree", base], {env});
        for (const patch of series) {
            const {code, stderr} = tryGit(repository, ["apply", "--cached", "--whitespace=nowarn", ...applyOptions, "-"], {env, input: patch.text});
            if (code !== 0)
                throw new UserError(describeFailure(patch, label, stderr));

            const tree = git(repository, ["write-tree"], {env}).trim();
            head = git(repository, ["commit-tree", tree, "-p", head], {env, input: messageOf(patch) + "\n"}).trim();
        }
        return head;
    } finally {
        fs.rmSync(scratch, {recursive: true, force: true});
    }
}

function describeFailure({name, text}, label, stderr) {
    const places = [...stderr.matchAll(/^error: patch failed: (.*):(\d+)$/gm)]
        .map(([, file, line]) => `  ${file}, hunk ${hunkAt(text, file, line)}`);
    const reasons = places.length > 0
        ? places
        : stderr.split("\n").filter((line) => line.startsWith("error: ")).map((line) => `  ${line.slice("error: ".length)}`);
    return `${label}/${name} does not apply:\n${reasons.join("\n")}\nThe source tree is as it was.`;
}

/** The `@@` line of the hunk that git means by a file and the line it starts at. */
function hunkAt(text, file, line) {
    const section = text.split(/^(?=diff --git )/m).find((part) => part.includes(`\n+++ b/${file}`)) ?? "";
    return section.split("\n").find((hunk) => hunk.startsWith(`@@ -${line},`) || hunk.startsWith(`@@ -${line} `)) ?? `at line ${line}`;
}
