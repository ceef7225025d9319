import type {LlamaContext} from "node-llama-cpp";

/** What is on a context, one of its kind at a time, until it is disposed, or its context is. */
export abstract class ContextAttachment {
    protected readonly context: LlamaContext;
    private readonly kind: string;

    /** that of each context that has one of this kind */
    private readonly attached: WeakMap<LlamaContext, ContextAttachment>;
    private readonly listeners: Array<{dispose(): void}> = [];
    private isDisposed = false;

    /** @internal */
    protected constructor(context: LlamaContext, kind: string, attached: WeakMap<LlamaContext, ContextAttachment>) {
        this.context = context;
        this.kind = kind;
        this.attached = attached;
    }

    /** To be called at the end of a constructor, when the context is as this says; listeners last as long as this does. */
    protected attach(...listeners: Array<{dispose(): void}>): void {
        this.attached.set(this.context, this);
        this.listeners.push(this.context.onDispose.createListener(() => this.markDisposed()), ...listeners);
    }

    /**
     * Makes the context what it was before.
     * @internal
     */
    protected abstract detach(): void;

    /**
     * Ends it. The next batch is evaluated without it, and the context can be given another one. Does nothing if it is disposed already.
     *
     * What a sequence holds is not evaluated again: tokens that were steered stay so, also where node-llama-cpp goes on from them, as chat
     * sessions do. `await sequence.clearHistory()` makes the sequence forget them.
     * @example
     * const emulation = emulateAttention(context);
     * emulation.dispose();
     * console.log(emulation.disposed); // true
     * const capture = captureAttention(context);
     * capture.dispose();
     * console.log(capture.disposed); // true
     */
    dispose(): void {
        if (this.disposed)
            return;

        this.detach();
        this.markDisposed();
    }

    /** @hidden */
    [Symbol.dispose](): void {
        this.dispose();
    }

    /** Whether it has ended, by itself or with its context. */
    get disposed(): boolean {
        return this.isDisposed || this.context.disposed;
    }

    protected ensureNotDisposed(): void {
        if (this.disposed)
            throw new Error(`The ${this.kind} is disposed`);
    }

    private markDisposed(): void {
        this.isDisposed = true;
        for (const listener of this.listeners)
            listener.dispose();
        if (this.attached.get(this.context) === this)
            this.attached.delete(this.context);
    }
}
