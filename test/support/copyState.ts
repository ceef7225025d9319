import type {LlamaContextSequence} from "reattend";

/** node-llama-cpp uses this for decisions only, and does not offer it. */
export async function copyState(sequence: LlamaContextSequence, from: LlamaContextSequence): Promise<boolean> {
    const internal = sequence as unknown as {
        _copyStateFromOtherSequence(other: LlamaContextSequence, upToTokenIndex: number): Promise<boolean>
    };
    return await internal._copyStateFromOtherSequence(from, from.nextTokenIndex);
}
