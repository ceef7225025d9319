import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import {setTimeout as sleep} from "node:timers/promises";
import {buildFolder} from "./paths.js";

const lockFile = path.join(buildFolder, "lock");

/** Runs `body` while no other process works in native/build. */
export async function withBuildLock(body) {
    fs.mkdirSync(buildFolder, {recursive: true});
    let told = false;
    while (!tryLock()) {
        if (!told)
            console.error(`Waiting for process ${owner()}, which is working in native/build`);
        told = true;
        await sleep(200);
    }

    process.on("exit", unlock);
    try {
        return await body();
    } finally {
        process.off("exit", unlock);
        unlock();
    }
}

function tryLock() {
    try {
        fs.writeFileSync(lockFile, String(process.pid), {flag: "wx"});
        return true;
    } catch (error) {
        if (error.code !== "EEXIST")
            throw error;
    }

    // a process that was killed leaves its lock behind
    if (!isAlive(owner()))
        unlock();
    return false;
}

function owner() {
    try {
        return Number(fs.readFileSync(lockFile, "utf8"));
    } catch {
        return NaN;
    }
}

function isAlive(pid) {
    // the file is there before its content is: give its owner time to write it
    if (!(pid > 0))
        return true;
    try {
        process.kill(pid, 0);
        return true;
    } catch (error) {
        return error.code === "EPERM";
    }
}

function unlock() {
    fs.rmSync(lockFile, {force: true});
}
