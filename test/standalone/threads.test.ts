import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {cgroupCpuLimit, defaultThreads} from "#dist/threads.js";

/** The limit on a machine with these files. */
function limitWith(files: Record<string, string>): number {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), "reattend-test-"));
    try {
        for (const [name, content] of Object.entries(files)) {
            fs.mkdirSync(path.dirname(path.join(root, name)), {recursive: true});
            fs.writeFileSync(path.join(root, name), content);
        }
        return cgroupCpuLimit(path.join(root, "proc"), path.join(root, "cgroup"));
    } finally {
        fs.rmSync(root, {recursive: true});
    }
}

test("never more threads than cores or than the process may use, and at least one", (t) => {
    t.is(defaultThreads(1), 1);
    t.is(defaultThreads(0), 1);
    t.true(defaultThreads(100_000) <= os.availableParallelism());
});

test("no limit without control groups or quotas", (t) => {
    t.is(limitWith({}), Infinity);
    t.is(limitWith({"proc/self/cgroup": "0::/\n"}), Infinity);
    t.is(limitWith({"proc/self/cgroup": "0::/user\n", "cgroup/user/cpu.max": "max 100000\n"}), Infinity);
});

test("version 2: the tightest quota of the group and those around it, rounded up", (t) => {
    t.is(limitWith({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000\n"}), 3);
    t.is(limitWith({
        "proc/self/cgroup": "0::/a/b\n",
        "cgroup/a/cpu.max": "200000 100000\n",
        "cgroup/a/b/cpu.max": "800000 100000\n"
    }), 2);
});

test("version 1: the cpu controller's quota", (t) => {
    const membership = "3:memory:/m\n2:cpu,cpuacct:/box\n";
    t.is(limitWith({"proc/self/cgroup": membership, "cgroup/cpu/box/cpu.cfs_quota_us": "400000", "cgroup/cpu/box/cpu.cfs_period_us": "100000"}), 4);
    t.is(limitWith({"proc/self/cgroup": membership, "cgroup/cpu/box/cpu.cfs_quota_us": "-1", "cgroup/cpu/box/cpu.cfs_period_us": "100000"}), Infinity);
});
