import process from "node:process";
import test from "ava";
import type {ExecutionContext} from "ava";

const {isStockTested, whyNoStock} = await import(new URL("../../scripts/lib/stock.js", import.meta.url).href) as {
    isStockTested: () => boolean,
    whyNoStock: () => string | undefined
};

/**
 * Why a test can't have stock node-llama-cpp beside ours; `undefined` where it can. In CI, on the platform where `npm test` installs its
 * binary, always `undefined`: there it is a failure if it isn't there.
 */
export const noStock = process.env["CI"] != null && isStockTested()
    ? undefined
    : whyNoStock();

/** A test with stock node-llama-cpp. Where it can't run, or `otherReason` is given, the test is skipped, and says why. */
export function testWithStock(title: string, run: (t: ExecutionContext) => Promise<void>, otherReason?: string): void {
    const reason = otherReason ?? noStock;
    if (reason == null)
        test.serial(title, run);
    else {
        console.warn(`skipped "${title}": ${reason}`);
        test.skip(`${title} [skipped: ${reason}]`, run);
    }
}
