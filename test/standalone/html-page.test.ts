import test from "ava";
import {renderHtmlPage, scriptSafeJson} from "#dist/htmlPage.js";
import {joinBytes, levelOfWeight, splitBytes, unzigzag, weightOfLevel, zigzag} from "#dist/inspect/packing.js";
import {packInspection, spread} from "#dist/inspect/packInspection.js";
import {quotedToken, visibleText} from "#dist/visibleText.js";
import {digits, percent, signed} from "#dist/numberText.js";
import {syntheticInspection} from "../support/syntheticInspection.js";

test("JSON in a script element holds any text, and none ends the element", (t) => {
    const texts = ["</script>", "<!--", "&amp;", "\u2028\u2029\u202e\u2066\ufeff", "\ud800", "\u0000\u0085", "plain äöü 漢字 🙂"];
    const json = scriptSafeJson({texts});

    t.deepEqual(JSON.parse(json), {texts});
    t.notRegex(json, /[<>&\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u);
});

test("a page is one file that may ask for nothing, and brings its licences", async (t) => {
    const html = await renderHtmlPage({page: "inspect", title: "a </title> & b", summary: "<b>", data: {a: 1}});

    t.true(html.startsWith("<!doctype html>"));
    t.true(html.includes("default-src 'none'"));
    t.true(html.includes("<title>a &#60;/title&#62; &#38; b</title>"));
    t.notRegex(html, /<(link|img|iframe)\b|\bsrc=/);
    for (const notice of ["@observablehq/plot", "Copyright 2010-2026 Mike Bostock"])
        t.true(html.includes(notice), notice);
});

test("packed weights are right to 0.14 %", (t) => {
    for (let weight = 1.5; weight > 1e-6; weight *= 0.917)
        t.true(Math.abs(weightOfLevel(levelOfWeight(weight)) / weight - 1) < 0.0014, String(weight));
    t.is(weightOfLevel(levelOfWeight(0)), 0);
    for (const difference of [0, -1, 1, 5, -6000])
        t.is(unzigzag(zigzag(difference)), difference);
    const numbers = Uint32Array.of(0, 1, 255, 256, 0xffffffff, 0x12345678);
    t.deepEqual(joinBytes(splitBytes(numbers)), numbers);
});

test("the page gets as many keys and layers as fit", async (t) => {
    const inspection = syntheticInspection({tokens: 50, layers: 10, heads: 2, topK: 16});
    const [all, fewer, few] = await Promise.all([1e6, 9000, 2000].map((mostKeys) => packInspection(inspection, {mostKeys})));

    t.deepEqual([all!.rows.keysKept, all!.rows.layers.length], [16, 10]);
    t.is(fewer!.rows.layers.length, 10);
    t.true(fewer!.rows.keysKept >= 8 && fewer!.rows.keysKept < 16);
    t.is(few!.rows.keysKept, 8);
    t.true(few!.rows.layers.length < 10);
    t.deepEqual([few!.rows.layers[0], few!.rows.layers.at(-1)], [0, 9]);
    t.deepEqual(spread([1, 2, 3, 4, 5], 3), [1, 3, 5]);
});

test("tokens are shown so that each character can be seen", (t) => {
    t.is(visibleText("a\nb\tc\u202e\ud800"), "a↵b⇥c⟨202E⟩⟨D800⟩");
    t.is(quotedToken("  the "), "··the·");
    t.is(quotedToken(""), "(empty)");
});

test("numbers have three digits", (t) => {
    t.deepEqual([12.345, 0.012345, 100, 1234.5, 0, NaN, -0.5].map(digits), ["12.3", "0.0123", "100", "1.23e+3", "0", "–", "−0.500"]);
    t.is(percent(0.12345), "12.3 %");
    t.deepEqual(["1 %", "−1 %", "0 %"].map(signed), ["+1 %", "−1 %", "0 %"]);
});
