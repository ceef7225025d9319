import {withBuildLock} from "./lock.js";
import {compile} from "./native-build.js";
import {prepareSource} from "./source.js";
import {requireTools} from "./tools.js";

/**
 * Prepares llama.cpp and compiles one target, for the CPU.
 * @param {{name: string, target: string, definitions: Record<string, string>}} options as {@link compile} has them
 * @returns {Promise<string>} the folder with the program
 */
export async function compileTarget({name, target, definitions}) {
    requireTools();
    return await withBuildLock(() => {
        prepareSource();
        return compile({name, gpu: false, config: "Release", target, definitions});
    });
}
