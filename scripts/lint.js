#!/usr/bin/env node
// Checks, or with --fix mends, the style of everything that is ours: ESLint for JavaScript and TypeScript, clang-format for C++.
import {spawnSync} from "node:child_process";
import {createRequire} from "node:module";
import path from "node:path";
import process from "node:process";
import {listFiles} from "./lib/files.js";
import {runMain, UserError} from "./lib/main.js";
import {packageRoot} from "./lib/paths.js";
import {findCommand} from "./lib/tools.js";

const nativeFolders = ["native/addon", "native/overlay", "bench/native", "test/architectures", "test/instructions", "test/kernels", "test/native"];
const nativeFile = /\.(c|cc|cpp|h|hpp|cu|cuh|m|metal)$/;

await runMain("lint", () => {
    const fix = process.argv.includes("--fix");

    const eslint = path.join(path.dirname(createRequire(import.meta.url).resolve("eslint/package.json")), "bin", "eslint.js");
    const goodScript = succeeds(process.execPath, [eslint, "--max-warnings=0", ...(fix ? ["--fix"] : []), "."]);

    if (findCommand("clang-format") == null)
        throw new UserError("clang-format is not there; install it with: apt install clang-format (this style is checked with version 14)");
    const files = nativeFolders.flatMap((folder) => (
        listFiles(path.join(packageRoot, folder)).map((file) => path.join(folder, file))
    )).filter((file) => nativeFile.test(file));
    const goodNative = files.length === 0 || succeeds("clang-format", [...(fix ? ["-i"] : ["--dry-run", "--Werror"]), ...files]);

    if (!goodScript || !goodNative)
        throw new UserError(fix
            ? "some of this cannot be mended by itself"
            : "style errors; `npm run format` mends most of them");
});

function succeeds(command, args) {
    const {status, error} = spawnSync(command, args, {cwd: packageRoot, stdio: "inherit"});
    if (error != null)
        throw error;
    return status === 0;
}
