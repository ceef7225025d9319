import process from "node:process";

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
