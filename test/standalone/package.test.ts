// What is published must hold all that an install compiles and runs.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import test from "ava";

const root = fileURLToPath(new URL("../..", import.meta.url));
const [{files}] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root, encoding: "utf8", shell: process.platform === "win32"
})) as [{files: Array<{path: string}>}];
const packed = new Set(files.map((file) => file.path));

/** The files below a folder of the repository, as paths from its root with slashes. */
function filesOf(folder: string): string[] {
    return fs.readdirSync(path.join(root, folder), {recursive: true, encoding: "utf8"})
        .map((file) => `${folder}/${file.replaceAll(path.sep, "/")}`)
        .filter((file) => fs.statSync(path.join(root, file)).isFile());
}

for (const folder of ["native/overlay", "native/patches", "native/addon", "models", "schemas"]) {
    test(`all of ${folder} is in the package`, (t) => {
        const wanted = filesOf(folder);
        t.true(wanted.length > 0);
        t.deepEqual(wanted.filter((file) => !packed.has(file)), []);
    });
}

/** A script and all that it imports of the repository's files. */
function importedBy(script: string, known = new Set<string>()): Set<string> {
    if (known.has(script))
        return known;
    known.add(script);
    for (const [, file] of fs.readFileSync(path.join(root, script), "utf8").matchAll(/ from "(\.[^"]+)"/g))
        importedBy(path.posix.join(path.posix.dirname(script), file!), known);
    return known;
}

test("what the install script imports is in the package", (t) => {
    const wanted = importedBy("scripts/build-native.js");
    t.true(wanted.size > 5);
    t.deepEqual([...wanted].filter((file) => !packed.has(file)), []);
});

test("what builds the addon, and what is imported, is in the package", (t) => {
    const wanted = [
        "binding.gyp", "native/CMakeLists.txt", "native/package.json", "scripts/build-native.js",
        "dist/index.js", "dist/index.d.ts", "dist/cli/cli.js", "package.json", "LICENSE", "THIRD-PARTY-NOTICES.md"
    ];
    t.deepEqual(wanted.filter((file) => !packed.has(file)), []);
});

test("nothing that is built, downloaded or for tests is in the package", (t) => {
    const unwanted = /^(native\/(bin|build)|test|dist-test|bench|node_modules|\.ci)\/|^scripts\/train/;
    const linked = "test/architectures/README.md"; // from the README
    t.deepEqual([...packed].filter((file) => unwanted.test(file) && file !== linked), []);
});

test("what is compiled has its source maps with it, and they the sources", (t) => {
    const compiled = [...packed].filter((file) => /^dist\/.*\.js$/.test(file));
    t.true(compiled.length > 50);
    let maps = 0;
    for (const file of compiled) {
        const [, url] = /^\/\/# sourceMappingURL=(.+)$/m.exec(fs.readFileSync(path.join(root, file), "utf8")) ?? [];
        if (url == null)
            continue;
        const map = path.posix.join(path.posix.dirname(file), url);
        t.true(packed.has(map), map);
        const {sourcesContent} = JSON.parse(fs.readFileSync(path.join(root, map), "utf8")) as {sourcesContent?: unknown[]};
        t.is(typeof sourcesContent?.[0], "string", map);
        maps++;
    }
    t.is(maps, [...packed].filter((file) => file.endsWith(".map")).length);
});

test("all who hold a copyright of what pages contain are named", (t) => {
    const notices = fs.readFileSync(path.join(root, "THIRD-PARTY-NOTICES.md"), "utf8");
    const licences = filesOf("dist/pages").filter((file) => file.endsWith(".js"))
        .map((page) => /^\/\*![^]*?\*\//.exec(fs.readFileSync(path.join(root, page), "utf8"))?.[0]);
    const holders = [...licences.join("\n").matchAll(/^Copyright (?:\(c\) )?[\d, -]+(.+)$/gmi)].map(([, holder]) => holder!.trim());
    t.true(holders.includes("Charles Karney"));
    t.deepEqual(holders.filter((holder) => !notices.includes(holder)), []);
});

test("a build removes what no source stands for any more from dist, and leaves the rest", (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-test-"));
    t.teardown(() => fs.rmSync(folder, {recursive: true}));
    for (const file of [
        "src/a.ts", "src/cli/b.ts", "src/pages/p/main.ts",
        "dist/a.js", "dist/a.js.map", "dist/a.d.ts", "dist/cli/b.js", "dist/pages/p.js", "dist/pages/p.css",
        "dist/old.js", "dist/old.js.map", "dist/cli/old.d.ts", "dist/pages/old.js"
    ]) {
        fs.mkdirSync(path.dirname(path.join(folder, file)), {recursive: true});
        fs.writeFileSync(path.join(folder, file), "");
    }
    execFileSync(process.execPath, [path.join(root, "scripts/remove-stale.js"), folder]);
    const left = fs.readdirSync(path.join(folder, "dist"), {recursive: true, encoding: "utf8"}).filter((file) => file.includes("."));
    t.deepEqual(left.map((file) => file.replaceAll(path.sep, "/")).sort(), ["a.d.ts", "a.js", "a.js.map", "cli/b.js", "pages/p.css", "pages/p.js"]);
});
