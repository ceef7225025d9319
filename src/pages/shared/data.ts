/** What `renderHtmlPage` was given. */
export function readPageData<T>(): T {
    return JSON.parse(document.getElementById("page-data")?.textContent ?? "null") as T;
}
