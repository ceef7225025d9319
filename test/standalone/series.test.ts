// The patch series as files: what scripts/prepare-source applies is what scripts/refresh-patches writes.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "ava";

type Patch = {name: string, text: string};
type Series = {
    messageOf: (patch: Patch) => string,
    formatPatch: (tree: string, commit: string, excluded: string[]) => string | undefined,
    patchFileName: (tree: string, commit: string, number: number) => string,
    commitSeries: (repository: string, base: string, series: Patch[], label: string) => string
};
const {messageOf, formatPatch, patchFileName, commitSeries} = await import(
    new URL("../../scripts/lib/series.js", import.meta.url).href
) as Series;

const lines = (change: Record<number, string> = {}) => Array.from({length: 30}, (_, i) => change[i] ?? `line ${i}`).join("\n") + "\n";

/** A repository with one file of 30 lines, and commits that change some of them. */
function createRepository(...changes: Array<{message: string, change: Record<number, string>}>) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-test-"));
    const git = (...args: string[]) => execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], {cwd: folder, encoding: "utf8"}).trim();
    git("init", "--quiet");
    const commits = [{message: "base", change: {}}, ...changes].map(({message, change}) => {
        fs.writeFileSync(path.join(folder, "file.c"), lines(change));
        git("add", ".");
        git("commit", "--quiet", "-m", message);
        return git("rev-parse", "HEAD");
    });
    return {folder, git, base: commits[0]!, commits: commits.slice(1)};
}

test("a commit becomes a patch without dates and hashes, and the same commit again", (t) => {
    const {folder, git, base, commits} = createRepository(
        {message: "first: a hook\n\nWhy it is there.", change: {5: "hooked"}},
        {message: "Second one", change: {5: "hooked", 20: "more"}}
    );
    const series = commits.map((commit, i) => ({name: patchFileName(folder, commit, i + 1), text: formatPatch(folder, commit, [])!}));

    t.deepEqual(series.map(({name}) => name), ["0001-first-a-hook.patch", "0002-Second-one.patch"]);
    t.is(series[0]!.text, [
        "Subject: first: a hook", "", "Why it is there.", "",
        "diff --git a/file.c b/file.c", "--- a/file.c", "+++ b/file.c",
        "@@ -5,3 +5,3 @@ line 3", " line 4", "-line 5", "+hooked", " line 6", ""
    ].join("\n"));

    const head = commitSeries(folder, base, series, "patches");
    t.is(git("rev-parse", `${head}^{tree}`), git("rev-parse", "HEAD^{tree}"));
    t.is(git("log", "-1", "--format=%B", `${head}^`), "first: a hook\n\nWhy it is there.");
    const again = git("rev-list", "--reverse", `${base}..${head}`).split("\n").map((commit) => formatPatch(folder, commit, []));
    t.deepEqual(again, series.map(({text}) => text));
    fs.rmSync(folder, {recursive: true});
});

test("a commit that only adds files of ours makes no patch", (t) => {
    const {folder, commits} = createRepository({message: "one", change: {1: "x"}});
    t.is(formatPatch(folder, commits[0]!, ["file.c"]), undefined);
    fs.rmSync(folder, {recursive: true});
});

test("a patch that does not apply is named, with the file and the hunk, and nothing has changed", (t) => {
    const {folder, git, base, commits} = createRepository({message: "good", change: {5: "hooked"}});
    const good = {name: "0001-good.patch", text: formatPatch(folder, commits[0]!, [])!};
    const bad = {name: "0002-bad.patch", text: good.text.replaceAll("line 6", "line six")};
    git("checkout", "--quiet", base);

    t.throws(() => commitSeries(folder, base, [good, bad], "native/patches"), {
        message: "native/patches/0002-bad.patch does not apply:\n  file.c, hunk @@ -5,3 +5,3 @@ line 3\nThe source tree is as it was."
    });
    t.is(git("status", "--porcelain"), "");
    t.is(git("rev-parse", "HEAD"), base);

    t.throws(() => commitSeries(folder, base, [{name: "0001-empty.patch", text: "Subject: nothing\n"}], "native/patches"), {
        message: /^native\/patches\/0001-empty\.patch does not apply:\n {2}No valid patches/
    });
    fs.rmSync(folder, {recursive: true});
});

test("mail headers, as git format-patch writes them, are understood", (t) => {
    const text = [
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001", "From: Someone <a@b>", "Date: Thu, 1 Jan 2026 00:00:00 +0000",
        "Subject: [PATCH 01/12] a long subject that", " goes on", "", "Why.", "", "And: more.", "---", " file.c | 2 +-", "", "diff --git a/file.c b/file.c", ""
    ].join("\n");
    t.is(messageOf({name: "x", text}), "a long subject that goes on\n\nWhy.\n\nAnd: more.");
    t.is(messageOf({name: "PR-1.diff", text: "diff --git a/x b/x\n"}), "PR-1.diff");
});
