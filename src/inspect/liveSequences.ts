import {idOfSequence, onContextCreated} from "../binding.js";
import type {Llama, LlamaContext, LlamaContextSequence} from "node-llama-cpp";

/** The sequences that were taken of each context, by id. */
const taken = new WeakMap<LlamaContext, Map<number, WeakRef<LlamaContextSequence>>>();

/** Notes which sequences contexts give away: a request for tokens to be evaluated has the id of its sequence only. */
export function noteSequences(llama: Llama): void {
    onContextCreated(llama, (context) => {
        const sequences = new Map<number, WeakRef<LlamaContextSequence>>();
        taken.set(context, sequences);

        const getSequence = context.getSequence.bind(context);
        context.getSequence = (options) => {
            const sequence = getSequence(options);
            sequences.set(idOfSequence(sequence), new WeakRef(sequence));
            return sequence;
        };
    });
}

/** The live sequence with an id, if there is one. */
export function liveSequence(context: LlamaContext, id: number): LlamaContextSequence | undefined {
    const sequence = taken.get(context)?.get(id)?.deref();
    return sequence?.disposed === false
        ? sequence
        : undefined;
}
