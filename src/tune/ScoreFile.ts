import fs from "node:fs";
/** The file is of another run, or damaged: said in one sentence. */
export class ScoreFileError extends Error {
    override name = "ScoreFileError";
}

/**
 * What was scored so far, line by line, so that a run that was stopped goes on from there: a search makes the same requests again,
 * and those that are here are not computed anew.
 */
export class ScoreFile {
    private constructor(
        private readonly file: string,
        private readonly results: Map<string, unknown>
    ) {}

    /**
     * @param run - all that the scores depend on
     * @throws {ScoreFileError} if there are scores of another run
     */
    static open(file: string, run: unknown): ScoreFile {
        const head = JSON.stringify({run});
        const results = new Map<string, unknown>();
        const text = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
        const [first = "", ...lines] = text.split("\n");
        // a run that ended before it had a score doesn't block another one
        if (text === "" || (first.startsWith('{"run":') && lines.every((line) => line === ""))) {
            fs.writeFileSync(file, `${head}\n`);
            return new ScoreFile(file, results);
        }
        if (first !== head)
            throw new ScoreFileError(
                `${file} has scores of another run, with another model, other data or other flags; remove it, or name another --output`
            );
        for (const line of lines) {
            try {
                const {key, result} = JSON.parse(line) as {key: string, result: unknown};
                results.set(key, result);
            } catch {
                // the last line of a run that was killed
            }
        }
        if (!text.endsWith("\n"))
            fs.appendFileSync(file, "\n");
        return new ScoreFile(file, results);
    }

    get size(): number {
        return this.results.size;
    }

    /** The result of a request, computed if it is not there. It must be JSON. */
    async get<T>(key: string, compute: () => Promise<T>): Promise<T> {
        if (this.results.has(key))
            return this.results.get(key) as T;

        const result = await compute();
        fs.appendFileSync(this.file, `${JSON.stringify({key, result})}\n`);
        return result;
    }

    /** The run is at its end. */
    remove(): void {
        fs.rmSync(this.file, {force: true});
    }
}
