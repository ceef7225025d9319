import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import test from "ava";
import ts from "typescript";
import {captureAttention, classOfToken, emulateAttention, getLlama, loadProfile, saveProfile} from "reattend";
import {oracleModelPath} from "../support/oracle.js";
import {createContext} from "../support/oracleModel.js";
import type {LlamaOptions} from "reattend";

/*
 * The examples of the documentation run. What they use without making it is a context.
 */

const folders = ["", "emulation/", "inspect/", "profile/"].map((name) => new URL(`../../src/${name}`, import.meta.url));
const AsyncFunction = (async () => {}).constructor as
    new (...parametersAndBody: string[]) => (...values: unknown[]) => Promise<void>;

const examples: Array<{title: string, code: string}> = [];
for (const url of (await Promise.all(folders.map(filesOf))).flat()) {
    const name = path.basename(url.pathname);
    const source = await fs.readFile(url, "utf8");
    for (const [index, [, comment]] of Array.from(source.matchAll(/@example\n((?: *\* .*\n)+)/g)).entries())
        examples.push({title: `${name}, example ${index + 1}`, code: comment!.replaceAll(/^ *\* /gm, "")});
}

async function filesOf(folder: URL): Promise<URL[]> {
    return (await fs.readdir(folder)).filter((name) => name.endsWith(".ts")).map((name) => new URL(name, folder));
}

// what examples write goes there
const cwd = process.cwd();
const scratch = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
process.chdir(scratch);
test.after.always(async () => {
    process.chdir(cwd);
    await fs.rm(scratch, {recursive: true});
});

const available = {
    captureAttention, classOfToken, emulateAttention, loadProfile, saveProfile,
    modelPath: oracleModelPath,
    // the servers that examples name are not there
    getLlama: (options: LlamaOptions) => getLlama({...options, rpcServers: []})
};

for (const {title, code} of examples) {
    test.serial(title, async (t) => {
        const context = await createContext();
        const logged: unknown[] = [];
        const quietConsole = {log: (...values: unknown[]) => logged.push(values.join(" "))};
        await new AsyncFunction(...Object.keys(available), "context", "console", code)(...Object.values(available), context, quietConsole);

        // "console.log(value); // 0.5" promises that 0.5 is logged
        for (const [, promised] of code.matchAll(/console\.log\(.*\); \/\/ (.*)/g))
            t.true(logged.includes(promised), `${promised} is not among ${JSON.stringify(logged)}`);
        await context.dispose();
        t.pass();
    });
}

test("every public function and method of ours has an example", (t) => {
    const index = fileURLToPath(import.meta.resolve("reattend")).replace(/\.js$/, ".d.ts");
    const program = ts.createProgram([index], {module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext});
    const checker = program.getTypeChecker();
    const isOurs = (symbol: ts.Symbol) => symbol.declarations?.every((declaration) => (
        declaration.getSourceFile().fileName.startsWith(path.dirname(index))
    )) ?? false;
    const isPublic = ({valueDeclaration}: ts.Symbol) => valueDeclaration == null || !(
        ts.getCombinedModifierFlags(valueDeclaration) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)
    );
    const resolved = (symbol: ts.Symbol) => symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    const hasExample = (symbol: ts.Symbol) => symbol.getJsDocTags(checker).some(({name}) => name === "example");

    const without: string[] = [];
    let found = 0;
    const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(index)!)!);
    for (const symbol of exported.map(resolved).filter(isOurs)) {
        const members = checker.getDeclaredTypeOfSymbol(symbol).getProperties()
            .filter((member) => member.flags & ts.SymbolFlags.Method && isOurs(member) && isPublic(member) && !member.name.startsWith("__@"));
        for (const callable of [...(symbol.flags & ts.SymbolFlags.Function ? [symbol] : []), ...members]) {
            found++;
            if (!hasExample(callable))
                without.push(`${symbol.name}: ${callable.name}`);
        }
    }
    t.deepEqual(without, []);
    t.true(found >= 12, `only ${found} were found`);
});
