import test from "ava";
import {runCli} from "../support/cli.js";

test("the demo asks both, and reports what comes out", async (t) => {
    const {code, stdout, stderr} = await runCli(["demo", "--threads", "1", "--questions", "4", "--show", "1"]);
    t.is(code, 0, stderr);
    for (const label of ["plain", "steered", "95 % interval", "McNemar", "Speed"])
        t.true(stdout.includes(label), stdout);
});

test("demo --json: both arms answer the same questions", async (t) => {
    const {code, stdout, stderr} = await runCli(["demo", "--json", "--threads", "1", "--questions", "3", "--seed", "5"]);
    t.is(code, 0, stderr);

    type Arm = {right: number, count: number, interval: [number, number], tokens: number};
    type Answer = {text: string, right: boolean};
    const {plain, steered, items, onlyPlain, onlySteered} = JSON.parse(stdout) as {
        plain: Arm, steered: Arm, onlyPlain: number, onlySteered: number,
        items: Array<{family: string, question: string, plain: Answer, steered: Answer}>
    };
    t.is(items.length, 3);
    t.is(new Set(items.map(({family}) => family)).size, 3);
    t.is(plain.count, 3);
    t.is(steered.right - plain.right, onlySteered - onlyPlain);
    t.is(plain.right, items.filter((item) => item.plain.right).length);
    t.true(plain.interval[0] <= plain.right / 3 && plain.right / 3 <= plain.interval[1]);
});
