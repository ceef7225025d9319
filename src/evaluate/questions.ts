import fs from "node:fs/promises";
import {seededRandom} from "../random.js";

/** A multiple-choice question, one line of a JSONL file such as models/questions.jsonl. */
export type Question = {
    id: string,
    family: string,

    /** what the model is asked, options included */
    question: string,

    /** the letter of the right option */
    answer: string
};

/** @throws {SyntaxError} naming the line that is not a question */
export async function readQuestions(file: string): Promise<Question[]> {
    const lines = (await fs.readFile(file, "utf8")).split("\n");
    return lines.flatMap((line, index) => line.trim() === "" ? [] : [parseQuestion(line, `${file}, line ${index + 1}`)]);
}

function parseQuestion(line: string, place: string): Question {
    let parsed: Partial<Question>;
    try {
        parsed = JSON.parse(line) as Partial<Question>;
    } catch (error) {
        throw new SyntaxError(`${place} is not JSON: ${(error as Error).message}`, {cause: error});
    }

    for (const field of ["id", "family", "question", "answer"] as const) {
        if (typeof parsed[field] !== "string")
            throw new SyntaxError(`${place} has no text in the field "${field}"`);
    }
    return parsed as Question;
}

/** Chooses questions at random, as evenly over the families as can be. The same seed chooses the same ones. */
export function chooseQuestions(questions: readonly Question[], count: number, seed: number): Question[] {
    return chooseEvenly(questions, ({family}) => family, count, seed);
}

/** Chooses things at random, as evenly over their kinds as can be. The same seed chooses the same ones. */
export function chooseEvenly<T>(things: readonly T[], kindOf: (thing: T) => string, count: number, seed: number): T[] {
    // the first one of each kind, then the second one of each, and so on
    return shuffleBy(things, kindOf, (rank) => rank, seed).slice(0, count);
}

/** Puts things in an order by chance in which each beginning has as much of each kind as the whole. The same seed, the same order. */
export function mixEvenly<T>(things: readonly T[], kindOf: (thing: T) => string, seed: number): T[] {
    const sizes = new Map<string, number>();
    for (const kind of things.map(kindOf))
        sizes.set(kind, (sizes.get(kind) ?? 0) + 1);
    return shuffleBy(things, kindOf, (rank, kind) => (rank + 0.5) / sizes.get(kind)!, seed);
}

/** @param placeOf - where the thing that is the nth of its kind, from 0, is to stand; among equal ones chance decides */
function shuffleBy<T>(
    things: readonly T[], kindOf: (thing: T) => string, placeOf: (rank: number, kind: string) => number, seed: number
): T[] {
    const taken = new Map<string, number>();
    return shuffle(things, seededRandom(seed))
        .map((thing) => {
            const kind = kindOf(thing);
            const rank = taken.get(kind) ?? 0;
            taken.set(kind, rank + 1);
            return {thing, place: placeOf(rank, kind)};
        })
        .sort((a, b) => a.place - b.place)
        .map(({thing}) => thing);
}

function shuffle<T>(items: readonly T[], random: () => number): T[] {
    const shuffled = [...items];
    for (let last = shuffled.length - 1; last > 0; last--) {
        const other = Math.floor(random() * (last + 1));
        [shuffled[last], shuffled[other]] = [shuffled[other]!, shuffled[last]!];
    }
    return shuffled;
}
