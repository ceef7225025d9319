import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {readExamples} from "#dist/evaluate/examples.js";
import {checkIds, taskOf} from "#dist/evaluate/tasks.js";
import type {ExecutionContext} from "ava";
import type {ChoiceTask, TaskName} from "#dist/evaluate/tasks.js";

/** A folder with files that a test makes up. */
async function folderOf(t: ExecutionContext, files: Record<string, string>): Promise<string> {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    t.teardown(() => fs.rm(folder, {recursive: true}));
    for (const [name, content] of Object.entries(files)) {
        await fs.mkdir(path.dirname(path.join(folder, name)), {recursive: true});
        await fs.writeFile(path.join(folder, name), content);
    }
    return folder;
}

async function read(task: TaskName, fileOrFolder: string, pattern?: string) {
    const {items, badRows, files} = await taskOf(task).read(fileOrFolder, pattern);
    return {
        items: items as Array<Record<string, unknown>>,
        badRows: badRows.map(({file, line, problem}) => `${path.basename(file)}:${line}: ${problem}`),
        files: files.map((file) => path.basename(file))
    };
}

test("MMLU: CSV as published, without a header", async (t) => {
    const folder = await folderOf(t, {
        "philosophy_test.csv": 'What is it?,one,"two, or so",three,four,B\n"It says ""no"".\nIs it?",a,b,c,d,D\n',
        "college_mathematics_test.csv": "1+1=,1,2,3,4,B\n",
        "philosophy_dev.csv": "for shots only,1,2,3,4,A\n",
        "readme.txt": "x"
    });
    const {items, badRows, files} = await read("mmlu", folder);
    t.deepEqual(files, ["college_mathematics_test.csv", "philosophy_test.csv"]);
    t.deepEqual(badRows, []);
    t.deepEqual(items[0], {id: "college_mathematics:1", subject: "college_mathematics", group: "STEM", question: "1+1=", options: ["1", "2", "3", "4"], answer: 1});
    t.deepEqual(items[1]!.options, ["one", "two, or so", "three", "four"]);
    t.deepEqual(items[2], {
        id: "philosophy:2", subject: "philosophy", group: "humanities", question: 'It says "no".\nIs it?', options: ["a", "b", "c", "d"], answer: 3
    });
});

test("MMLU: with a header the columns go by their names", async (t) => {
    const folder = await folderOf(t, {
        "data/test/virology_test.csv": ",question,A,B,C,D,answer,model_output\n0,What?,w,x,y,z,C,A\n",
        "data/test/astrology_test.csv": "\ufeffquestion,a,b,c,d,answer\r\nWhy?,1,2,3,4,A\r\n"
    });
    const {items, badRows} = await read("mmlu", path.join(folder, "data"));
    t.deepEqual(badRows, []);
    t.deepEqual(items, [
        {id: "astrology:2", subject: "astrology", group: undefined, question: "Why?", options: ["1", "2", "3", "4"], answer: 0},
        {id: "virology:2", subject: "virology", group: "other", question: "What?", options: ["w", "x", "y", "z"], answer: 2}
    ]);
});

test("MMLU: bad rows are named by line, counted over rows of several lines and empty ones", async (t) => {
    const folder = await folderOf(t, {
        "x_test.csv": '"Two\nlines?",1,2,3,4,A\n\nonly,1,2\nWhich?,1,2,3,4,E\n,1,2,3,4,A\nWhich?,1,,3,4,A\nGood?,1,2,3,4,C\n'
    });
    const {items, badRows} = await read("mmlu", folder);
    t.deepEqual(items.map(({id}) => id), ["x:1", "x:8"]);
    t.deepEqual(badRows, [
        "x_test.csv:4: 3 columns instead of 6",
        'x_test.csv:5: the answer is "E", but must be A, B, C or D',
        "x_test.csv:6: the question is empty",
        "x_test.csv:7: an option is empty"
    ]);
});

test("MMLU: a quotation mark that is never closed, and no CSV at all", async (t) => {
    const folder = await folderOf(t, {"x_test.csv": 'Good?,1,2,3,4,C\n"Bad?,1,2,3,4,A\n', "empty/x.txt": ""});
    await t.throwsAsync(read("mmlu", folder), {name: "DataError", message: /x_test\.csv is no CSV file: .*line 2/i});
    await t.throwsAsync(read("mmlu", path.join(folder, "empty")), {name: "DataError", message: /has no file that ends in \.csv/});
    await t.throwsAsync(read("mmlu", path.join(folder, "none")), {name: "DataError", message: /there is no such file or folder/});
});

test("PIQA and its labels, as published", async (t) => {
    const folder = await folderOf(t, {
        "train.jsonl": '{"goal": "t", "sol1": "x", "sol2": "y"}\n',
        "train-labels.lst": "0\n",
        "valid.jsonl": '{"goal": "To boil", "sol1": "use ice", "sol2": "use fire"}\n{"goal": "g", "sol1": "a"}\n\n{"goal": "h", "sol1": "a", "sol2": "b"}\n',
        "valid-labels.lst": "1\n0\nx\n",
        "few/few.jsonl": '{"goal": "t", "sol1": "x", "sol2": "y"}\n{"goal": "u", "sol1": "x", "sol2": "y"}\n',
        "few/few-labels.lst": "0\n",
        "tests.jsonl": '{"goal": "no label", "sol1": "x", "sol2": "y"}\n'
    });
    await t.throwsAsync(read("piqa", path.join(folder, "few", "few.jsonl")), {
        name: "DataError", message: /few\.jsonl has 2 rows, but \S*few-labels\.lst has 1 labels; each row must have one$/
    });
    const {items, badRows, files} = await read("piqa", folder);
    t.deepEqual(files, ["valid.jsonl", "valid-labels.lst"]);
    t.deepEqual(items, [{id: "valid:1", subject: "piqa", question: "To boil", options: ["use ice", "use fire"], answer: 1}]);
    t.deepEqual(badRows, ['valid.jsonl:2: no field "sol2"', "valid.jsonl:4: the label in valid-labels.lst is x, but must be 0 or 1"]);
    t.deepEqual((await read("piqa", path.join(folder, "train.jsonl"))).items.map(({question}) => question), ["t"]);
    await t.throwsAsync(read("piqa", path.join(folder, "tests.jsonl")), {name: "DataError", message: /tests-labels\.lst: there is no such file/});
});

test("Social IQa and its labels, as published", async (t) => {
    const row = '{"context": "Ann fell.", "question": "How is Ann?", "answerA": "glad", "answerB": "hurt", "answerC": "rich"}\n';
    const folder = await folderOf(t, {"dev.jsonl": row + row, "dev-labels.lst": "2\n4\n"});
    const {items, badRows} = await read("social-iqa", folder);
    t.deepEqual(items, [
        {id: "dev:1", subject: "social-iqa", question: "Ann fell. How is Ann?", options: ["glad", "hurt", "rich"], answer: 1}
    ]);
    t.deepEqual(badRows, ["dev.jsonl:2: the label in dev-labels.lst is 4, but must be 1 or 2 or 3"]);
});

test("multiple choice of one's own: answers by text, letter or index; what is wrong is said", async (t) => {
    const folder = await folderOf(t, {"own.jsonl": [
        '{"question": "q", "options": ["x", "y"], "answer": "y"}',
        '{"question": "q", "options": ["x", "y"], "answer": "A", "id": "mine", "subject": "s", "group": "g"}',
        '{"question": "q", "options": ["B", "A"], "answer": "A"}',
        '{"question": "q", "options": ["x", "y", "z"], "answer": 2}',
        '{"question": "q", "options": ["x", "y"], "answer": "C"}',
        '{"question": "q", "options": ["x", "y"], "answer": 2}',
        '{"question": "q", "options": ["x"], "answer": 0}',
        '{"question": 5, "options": ["x", "y"], "answer": 0}',
        '{"question": "q", "options": ["x", "y"]}',
        "",
        "no JSON",
        "[]"
    ].join("\n")});
    const {items, badRows} = await read("choice", path.join(folder, "own.jsonl"));
    t.deepEqual(items.map(({id, subject, group, answer}) => [id, subject, group, answer]), [
        ["own:1", "own", undefined, 1], ["mine", "s", "g", 0], ["own:3", "own", undefined, 1], ["own:4", "own", undefined, 2]
    ]);
    t.is(badRows.length, 7);
    for (const [index, problem] of [
        /^own\.jsonl:5: the field "answer" is "C", but must be the text, the letter or the index of one of 2 options/,
        /^own\.jsonl:6: the field "answer" is 2/,
        /^own\.jsonl:7: the field "options" must be an array of 2 to 26 texts/,
        /^own\.jsonl:8: the field "question" is 5, but must be text/,
        /^own\.jsonl:9: the field "answer" is missing/,
        /^own\.jsonl:11: not JSON/,
        /^own\.jsonl:12: not a JSON object/
    ].entries())
        t.regex(badRows[index]!, problem);
});

async function examplesOf(task: TaskName, fileOrFolder: string, count: number, file?: string) {
    const choiceTask = taskOf(task) as ChoiceTask;
    const data = await choiceTask.read(fileOrFolder);
    const {of, files, badRows} = await readExamples(choiceTask, {count, file, data});
    return {
        shown: data.items.map((item) => of(item).map(({question}) => question)),
        files: files.map((one) => path.relative(fileOrFolder, one)),
        badRows: badRows.map(({file: name, line}) => `${path.basename(name)}:${line}`)
    };
}

test("examples of MMLU: the first rows of each subject's dev file, in a folder dev as published or beside the data", async (t) => {
    const dev = "d1,1,2,3,4,A\nno item,1\nd2,1,2,3,4,B\nd3,1,2,3,4,C\n";
    const folder = await folderOf(t, {
        "test/virology_test.csv": "q1,1,2,3,4,A\nq2,1,2,3,4,A\n",
        "test/philosophy_test.csv": "q3,1,2,3,4,A\n",
        "dev/virology_dev.csv": dev,
        "dev/philosophy_dev.csv": dev.replaceAll("d", "e"),
        "flat/virology_test.csv": "q1,1,2,3,4,A\n",
        "flat/virology_dev.csv": dev
    });
    const published = {
        shown: [["e1", "e2"], ["d1", "d2"], ["d1", "d2"]],
        badRows: ["philosophy_dev.csv:2", "virology_dev.csv:2"]
    };
    t.deepEqual(await examplesOf("mmlu", path.join(folder, "test"), 2), {
        ...published, files: ["philosophy_dev.csv", "virology_dev.csv"].map((name) => path.join("..", "dev", name))
    });
    t.like(await examplesOf("mmlu", folder, 2), published);
    t.like(await examplesOf("mmlu", path.join(folder, "flat"), 3), {shown: [["d1", "d2", "d3"]], files: ["virology_dev.csv"]});
    t.like(await examplesOf("mmlu", path.join(folder, "test", "virology_test.csv"), 1), {shown: [["d1"], ["d1"]]});

    await t.throwsAsync(examplesOf("mmlu", path.join(folder, "test"), 4), {
        name: "DataError", message: /philosophy_dev\.csv has 3 items, but --shots 4 needs 4; rows that are no items: 1$/
    });
    await t.throwsAsync(examplesOf("mmlu", path.join(folder, "dev"), 1), {
        name: "DataError", message: /philosophy_dev\.csv has the examples, and is data that is asked, too/
    });
    await fs.rm(path.join(folder, "dev", "virology_dev.csv"));
    await t.throwsAsync(examplesOf("mmlu", path.join(folder, "test"), 1), {
        name: "DataError",
        message: /examples for \S*virology_test\.csv are missing: there is neither \S*test.virology_dev\.csv nor \S*dev.virology_dev\.csv$/
    });
});

test("examples of other tasks: the first items of the file that is named, the same for all", async (t) => {
    const lines = (questions: string[]) => questions.map((question) => (
        `${JSON.stringify({question, options: ["x", "y"], answer: 0, subject: question})}\n`
    )).join("");
    const folder = await folderOf(t, {
        "own.jsonl": lines(["q1", "q2"]),
        "shots/own.jsonl": lines(["e1", "e2", "e3"]),
        "piqa/valid.jsonl": '{"goal": "q1", "sol1": "x", "sol2": "y"}\n',
        "piqa/valid-labels.lst": "0\n",
        "piqa/train.jsonl": '{"goal": "e1", "sol1": "x", "sol2": "y"}\n{"goal": "e2", "sol1": "x", "sol2": "y"}\n',
        "piqa/train-labels.lst": "0\nx\n"
    });
    const own = path.join(folder, "own.jsonl");
    t.like(await examplesOf("choice", own, 2, path.join(folder, "shots", "own.jsonl")), {
        shown: [["e1", "e2"], ["e1", "e2"]], badRows: []
    });
    t.deepEqual(await examplesOf("piqa", path.join(folder, "piqa"), 1, path.join(folder, "piqa", "train.jsonl")), {
        shown: [["e1"]], files: ["train.jsonl", "train-labels.lst"], badRows: ["train.jsonl:2"]
    });
    await t.throwsAsync(examplesOf("piqa", path.join(folder, "piqa"), 2, path.join(folder, "piqa", "train.jsonl")), {
        name: "DataError", message: /train\.jsonl has 1 item, but --shots 2 needs 2; rows that are no items: 1$/
    });
    await fs.copyFile(own, path.join(folder, "shots", "copy.jsonl"));
    for (const file of [path.join("..", "own.jsonl"), "copy.jsonl"])
        await t.throwsAsync(examplesOf("choice", own, 1, path.join(folder, "shots", file)), {
            name: "DataError", message: /(own|copy)\.jsonl has the examples, and is data that is asked, too/
        });
});

test("free-form questions have a pattern, their own or the command's", async (t) => {
    const folder = await folderOf(t, {"f.jsonl": [
        '{"question": "1+1", "answer": 2, "pattern": "(\\\\d+)$"}',
        '{"question": "say yes", "pattern": "yes"}',
        '{"question": "q", "answer": "x"}',
        '{"question": "q", "answer": "x", "pattern": "("}'
    ].join("\n")});
    const own = await read("free-form", folder);
    t.deepEqual(own.items.map(({answer, pattern}) => [answer, pattern]), [["2", "(\\d+)$"], [undefined, "yes"]]);
    t.regex(own.badRows[0]!, /^f\.jsonl:3: no field "pattern", and --answer-pattern is not given/);
    t.regex(own.badRows[1]!, /^f\.jsonl:4: the pattern is no regular expression/);
    t.is((await read("free-form", folder, "x")).items.length, 3);
});

test("the embedded model's questions: all of them", async (t) => {
    const task = taskOf("embedded");
    t.is(task.kind, "choice");
    const {items, badRows} = await read("embedded", (task as {defaultData: string}).defaultData);
    t.is(items.length, 1200);
    t.deepEqual(badRows, []);
    t.deepEqual([...new Set(items.map(({group}) => group))].sort(), ["non-stem", "stem"]);
});

test("texts: files of a folder; an empty one is named, and what is no text refused", async (t) => {
    const folder = await folderOf(t, {"a.txt": "Once", "b.md": "upon", "c.txt": " \n"});
    const {items, badRows} = await read("text", folder);
    t.deepEqual(items.map(({id, text}) => [id, text]), [["a", "Once"], ["b", "upon"]]);
    t.deepEqual(badRows, ["c.txt:1: the file is empty"]);
    await fs.writeFile(path.join(folder, "d.txt"), Buffer.from([0xff, 0xfe, 0x00]));
    await t.throwsAsync(read("text", folder), {name: "DataError", message: /d\.txt: it is not text in UTF-8/});
});

test("ids are their own", (t) => {
    t.notThrows(() => checkIds([{id: "a"}, {id: "b"}]));
    t.throws(() => checkIds([{id: "a"}, {id: "a"}]), {name: "DataError", message: 'two items of the data have the id "a"'});
});
