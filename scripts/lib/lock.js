import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import {setTimeout as sleep} from "node:timers/promises";
import {readIfThere} from "./files.js";
import {buildFolder} from "./paths.js";

/**
 * Runs `body` while no other process works in native/build.
 * @param {string} [folder] where the lock is
 */
export async function withBuildLock(body, folder = buildFolder) {
    fs.mkdirSync(folder, {recursive: true});
    const lockFile = path.join(folder, "lock");
    const own = describe(process.pid);
    for (let told = false; !tryLock(lockFile, own); await sleep(200)) {
        const [owner] = readLock(lockFile)?.split(" ") ?? [];
        if (owner != null && !told)
            console.error(`Waiting for process ${owner}, which is working in native/build`);
        told ||= owner != null;
    }

    const unlock = () => {
        if (readLock(lockFile) === own)
            fs.rmSync(lockFile, {force: true});
    };
    process.on("exit", unlock);
    try {
        return await body();
    } finally {
        process.off("exit", unlock);
        unlock();
    }
}

function tryLock(lockFile, own) {
    const found = readLock(lockFile);
    if (found != null && isLeftBehind(found)) {
        // not taken at once: others who have just seen the same may still move what is there
        moveAside(lockFile, found);
        return false;
    }

    // linked, so that the lock is there with its content or not at all
    const draft = `${lockFile}.${process.pid}`;
    fs.writeFileSync(draft, own);
    try {
        fs.linkSync(draft, lockFile);
        return true;
    } catch (error) {
        if (error.code !== "EEXIST")
            throw error;
        return false;
    } finally {
        fs.rmSync(draft);
    }
}

function readLock(lockFile) {
    return readIfThere(lockFile)?.toString();
}

/** A process, and when it was started: its id may be another's by now. */
function describe(pid) {
    return `${pid} ${startTimeOf(pid)}`;
}

/** A process that was killed leaves its lock behind; where it has our own id, it was one before us. */
function isLeftBehind(lock) {
    const [, pid, startTime] = /^([1-9]\d*) (\d*)$/.exec(lock) ?? [];
    if (pid == null || Number(pid) === process.pid || !isAlive(Number(pid)))
        return true;
    const started = startTimeOf(pid);
    return startTime !== "" && started !== "" && started !== startTime;
}

function isAlive(pid) {
    try {
        process.kill(pid, 0);
        return true;
    } catch (error) {
        return error.code === "EPERM";
    }
}

/** In ticks since the machine was started; empty where there is no /proc. */
function startTimeOf(pid) {
    const stat = readIfThere(`/proc/${pid}/stat`)?.toString() ?? "";
    // the 22nd field; the second one, a name in brackets, may have spaces
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

/** Removes a lock that was left behind, unless another process has replaced it meanwhile: then that one is put back. */
function moveAside(lockFile, leftBehind) {
    const aside = `${lockFile}.${process.pid}`;
    try {
        fs.renameSync(lockFile, aside);
        if (readLock(aside) !== leftBehind)
            fs.linkSync(aside, lockFile);
    } catch (error) {
        if (error.code !== "ENOENT" && error.code !== "EEXIST")
            throw error;
    } finally {
        fs.rmSync(aside, {force: true});
    }
}
