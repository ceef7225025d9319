import {spawn} from "node:child_process";
import readline from "node:readline";

/** A process that does a block of work for each line that it is sent, and answers with a line of JSON. */
export class Child {
    #process;
    #lines;
    #stderr = "";
    #ended;

    constructor(command, args, {env} = {}) {
        this.#process = spawn(command, args, {stdio: ["pipe", "pipe", "pipe"], env});
        this.#process.stdin.on("error", () => undefined); // the end of the process tells more
        this.#process.stderr.setEncoding("utf8").on("data", (text) => this.#stderr += text);
        this.#ended = new Promise((resolve) => {
            this.#process.on("error", (error) => resolve(error.message));
            this.#process.on("close", (code, signal) => resolve(`it ended with ${signal ?? `exit code ${code}`}`));
        });
        this.#lines = readline.createInterface({input: this.#process.stdout})[Symbol.asyncIterator]();
    }

    /** @param {...(string | number)} words one after the other, as none of them has a blank */
    async ask(...words) {
        this.#process.stdin.write(`${words.join(" ")}\n`);
        const {value, done} = await this.#lines.next();
        if (done)
            throw new Error(`${words.join(" ")}: ${await this.#ended}. ${this.#stderr.trim()}`);
        return JSON.parse(value);
    }

    async end() {
        this.#process.stdin.end();
        await this.#ended;
    }
}
