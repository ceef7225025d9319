import fs from "node:fs";
import os from "node:os";
import path from "node:path";

/**
 * How many threads compute fastest: one for each physical core, but no more than this process may use. A second thread on
 * a core, or one that waits for its turn, makes every other thread wait at the next barrier.
 * @param physicalCores as llama.cpp counts them (performance cores only where a CPU has two kinds)
 */
export function defaultThreads(physicalCores: number): number {
    return Math.max(1, Math.min(physicalCores, os.availableParallelism(), cgroupCpuLimit()));
}

/** The CPU quota of the container or service that we run in, in cores, rounded up; `Infinity` where there is none. */
export function cgroupCpuLimit(procFolder: string = "/proc", cgroupFolder: string = "/sys/fs/cgroup"): number {
    const membership = readIfThere(path.join(procFolder, "self", "cgroup"));
    if (membership == null)
        return Infinity;

    let limit = Infinity;
    for (const line of membership.trim().split("\n")) {
        const [, controllers = "", group = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
        if (controllers !== "" && !controllers.split(",").includes("cpu"))
            continue;

        // version 2 names no controllers; version 1 keeps each set of them in a folder of its own
        const top = path.join(cgroupFolder, controllers === "" ? "" : "cpu");
        for (const folder of withParents(group))
            limit = Math.min(limit, quotaOf(path.join(top, folder)));
    }
    return Math.ceil(limit);
}

/** A group is bound by its own quota and by those of every group around it. */
function withParents(group: string): string[] {
    const parts = group.split("/").filter((part) => part !== "");
    return [...parts.keys(), parts.length].map((length) => parts.slice(0, length).join("/"));
}

function quotaOf(folder: string): number {
    const both = readIfThere(path.join(folder, "cpu.max"))?.trim().split(" ");
    const [quota, period] = (both ?? [
        readIfThere(path.join(folder, "cpu.cfs_quota_us")),
        readIfThere(path.join(folder, "cpu.cfs_period_us"))
    ]).map(Number);

    // "max" in version 2 and -1 in version 1 stand for no quota
    return quota != null && period != null && quota > 0 && period > 0
        ? quota / period
        : Infinity;
}

function readIfThere(file: string): string | undefined {
    try {
        return fs.readFileSync(file, "utf8");
    } catch {
        return undefined;
    }
}
