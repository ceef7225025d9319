import type {View} from "./data.js";

/** What the reader has chosen. Layers and heads are indices among the captured ones. */
export type State = {
    view: View,
    layer: number,
    head: number,

    /** the token whose row is looked at, as a query */
    pinned: number | undefined
};

export type Store = {
    readonly state: Readonly<State>,
    set(change: Partial<State>): void,

    /** Calls back now and after each change, with what it was before. */
    watch(listener: (state: Readonly<State>, before: Readonly<State> | undefined) => void): void
};

export function createStore(initial: State): Store {
    let state = initial;
    const listeners: Array<(state: Readonly<State>, before: Readonly<State> | undefined) => void> = [];
    return {
        get state() {
            return state;
        },
        set(change) {
            const before = state;
            state = {...state, ...change};
            for (const listener of listeners)
                listener(state, before);
        },
        watch(listener) {
            listeners.push(listener);
            listener(state, undefined);
        }
    };
}
