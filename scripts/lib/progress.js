import process from "node:process";

/** Shows how far a build is: one line that moves on a terminal, a line for each tenth elsewhere. */
export class Progress {
    #label;
    #start = Date.now();
    #shown = -1;
    #drawn = false;

    constructor(label) {
        this.#label = label;
    }

    /** Takes one line of what make or ninja print: `[ 42%] ...` or `[12/345] ...`. */
    read(line) {
        const [, percent, done, all] = /^\[\s*(?:(\d+)%|(\d+)\/(\d+))\]/.exec(line) ?? [];
        if (percent != null)
            this.#show(Number(percent));
        else if (done != null)
            this.#show(Math.floor(100 * Number(done) / Number(all)));
    }

    /** Ends the moving line, so that what follows starts on a line of its own. */
    end() {
        if (this.#drawn)
            process.stderr.write("\n");
        this.#drawn = false;
    }

    #show(percent) {
        // a nested build starts over: never go back
        const step = process.stderr.isTTY
            ? 1
            : 10;
        if (percent < this.#shown + step && !(percent === 100 && this.#shown !== 100))
            return;
        this.#shown = percent - percent % step;

        const text = `${this.#label} ${String(percent).padStart(3)} %  ${formatTime(Date.now() - this.#start)}`;
        if (process.stderr.isTTY) {
            process.stderr.write(`\r${text}`);
            this.#drawn = true;
        } else {
            process.stderr.write(text + "\n");
        }
    }
}

export function formatTime(milliseconds) {
    const seconds = Math.round(milliseconds / 1000);
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
