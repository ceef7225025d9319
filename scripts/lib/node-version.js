import process from "node:process";
import {UserError} from "./main.js";

/** Throws where this version of Node.js is older than package.json's `engines` allow: npm only warns. */
export function requireNode(version = process.versions.node) {
    const [major, minor] = version.split(".").map(Number);
    const allowed = (major === 20 && minor >= 17) || (major === 22 && minor >= 9) || major > 22;
    if (!allowed)
        throw new UserError(`Node.js is ${version}; allowed are 20.17 and later versions of 20, and all from 22.9`);
}
