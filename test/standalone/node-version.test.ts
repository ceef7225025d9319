// The versions of Node.js that the native part is built with.
import fs from "node:fs";
import test from "ava";

const {requireNode} = await import(
    new URL("../../scripts/lib/node-version.js", import.meta.url).href
) as {requireNode: (version?: string) => void};

test("the install script allows what package.json does, and says what else is needed", (t) => {
    const {engines} = JSON.parse(fs.readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {engines: {node: string}};
    t.is(engines.node, "^20.17.0 || >=22.9.0");

    for (const version of ["20.17.0", "20.19.1", "22.9.0", "23.0.0", "24.1.0"])
        t.notThrows(() => requireNode(version), version);
    for (const version of ["18.20.0", "20.16.0", "21.7.3", "22.8.0"])
        t.throws(() => requireNode(version), {
            message: `Node.js is ${version}; allowed are 20.17 and later versions of 20, and all from 22.9`
        });
});
