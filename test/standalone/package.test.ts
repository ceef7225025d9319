// What is published must hold all that an install compiles and runs.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import path from "node:path";
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
