export default {
    files: ["dist-test/**/*.test.js"],
    // native code is in play: a process for each file keeps a crash, and what is loaded, to that file
    workerThreads: false,
    // computing tests use every core themselves
    concurrency: 1,
    timeout: "10m",
    // glibc then gives back what is freed, so that the soak test tells growth from leaks
    environmentVariables: {MALLOC_ARENA_MAX: "1"}
};
