import {counted} from "../numberText.js";
import {hashFile} from "./hash.js";
import {DataError} from "./item.js";
import type {BadRow, ChoiceItem, Data} from "./item.js";
import type {ChoiceTask} from "./tasks.js";

/** Questions that are shown with their answers before the one that is asked. */
export type Examples = {
    of: (item: ChoiceItem) => readonly ChoiceItem[],

    /** the files that they came from, labels included */
    files: string[],

    /** rows of those that are no items */
    badRows: BadRow[]
};

export const noExamples: Examples = {of: () => [], files: [], badRows: []};

/**
 * The first examples of a file, the same for all items; or, of a task that has a file of them for each subject, the first of that.
 * @param file - `undefined`: the task knows where they are
 * @throws {DataError} if there are too few, or they are among what is asked
 */
export async function readExamples(
    task: ChoiceTask, {count, file, data}: {count: number, file: string | undefined, data: Data<ChoiceItem>}
): Promise<Examples> {
    const sources = file == null
        ? await Promise.all(data.files.map((dataFile) => task.exampleFile!(dataFile)))
        : [file];
    const read = await Promise.all(sources.map((source) => task.read(source)));

    const files = read.flatMap((one) => one.files);
    // a copy has another path, but the same hash
    const hashes = async (list: readonly string[]) => await Promise.all(list.map((one) => hashFile(one)));
    const dataHashes = await hashes(data.files);
    const exampleHashes = await hashes(files);
    const asked = files.find((one, index) => !one.endsWith(".lst") && dataHashes.includes(exampleHashes[index]!)); // labels may be the same
    if (asked != null)
        throw new DataError(`${asked} has the examples, and is data that is asked, too; an example would tell its own answer`);
    for (const [index, {items}] of read.entries()) {
        if (items.length < count)
            throw new DataError(
                `${sources[index]} has ${counted(items.length, "item")}, but --shots ${count} needs ${count}` +
                (read[index]!.badRows.length > 0 ? `; rows that are no items: ${read[index]!.badRows.length}` : "")
            );
    }

    const examples = read.map(({items}) => items.slice(0, count));
    const bySubject = new Map(examples.map((one) => [one[0]!.subject, one]));
    return {
        of: file == null
            ? ({subject}) => bySubject.get(subject)!
            : () => examples[0]!,
        files,
        badRows: read.flatMap(({badRows}) => badRows)
    };
}
