import {spawnSync} from "node:child_process";
import os from "node:os";
import process from "node:process";
import {UserError} from "./main.js";

/** Commits made here have the same hash everywhere, so that a tree that is up to date stays untouched. */
const identity = {
    GIT_AUTHOR_NAME: "reattend",
    GIT_AUTHOR_EMAIL: "reattend@localhost",
    GIT_AUTHOR_DATE: "2000-01-01T00:00:00Z",
    GIT_COMMITTER_NAME: "reattend",
    GIT_COMMITTER_EMAIL: "reattend@localhost",
    GIT_COMMITTER_DATE: "2000-01-01T00:00:00Z"
};

/** Runs git in `cwd`, untouched by the user's settings and by a git that may have started us; returns its exit code and output. */
export function tryGit(cwd, args, {input, env = {}} = {}) {
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("GIT_")));
    const result = spawnSync("git", ["-c", "core.quotePath=false", "-c", "advice.detachedHead=false", ...args], {
        cwd,
        input,
        encoding: "utf8",
        maxBuffer: 1024 ** 3,
        env: {
            ...inherited,
            LC_ALL: "C",
            GIT_CONFIG_GLOBAL: os.devNull,
            GIT_CONFIG_NOSYSTEM: "1",
            // reading the state must not touch the index, on whose time stamp llama.cpp's CMake depends
            GIT_OPTIONAL_LOCKS: "0",
            ...identity,
            ...env
        }
    });
    if (result.error?.code === "ENOENT")
        throw new UserError("git is not there, and llama.cpp's source comes as a git bundle. Install it: " +
            "`apt install git` on Debian and Ubuntu, `xcode-select --install` on macOS, https://git-scm.com on Windows.");
    if (result.error != null)
        throw result.error;

    // git is never asked what it could not do for one of these; what it says has the file's name
    const refused = result.status !== 0 &&
        result.stderr.split("\n").find((line) => /permission denied|not permitted|read-only file system|no space left|quota exceeded/i.test(line));
    if (refused)
        throw new UserError(`git cannot write in ${cwd}: ${refused.trim()}`);

    return {code: result.status, stdout: result.stdout, stderr: result.stderr};
}

/** Runs git and returns what it printed; throws where it fails. */
export function git(cwd, args, options) {
    const {code, stdout, stderr} = tryGit(cwd, args, options);
    if (code !== 0)
        throw new Error(`git ${args.join(" ")} failed in ${cwd}:\n${stderr}`);
    return stdout;
}

export function gitLines(cwd, args, options) {
    return git(cwd, args, options).split("\n").filter((line) => line !== "");
}
