import dns from "node:dns/promises";
import net from "node:net";
import process from "node:process";
import {loadBinding} from "../binding.js";
import {findBuilds} from "../builds.js";
import {openBest, selectBuilds} from "../chooseBuild.js";
import {defaultThreads} from "../threads.js";
import {Failure} from "./failure.js";
import {checkGpu, chooseGpu} from "./gpu.js";
import type {Binding} from "../binding.js";
import type {Build} from "../builds.js";
import type {Opened} from "../chooseBuild.js";
import type {GpuFlag} from "./flags.js";

export type ServeRpcFlags = {
    host: string,
    port: number,
    gpu?: GpuFlag,
    threads?: number
};

/** Serves until a signal ends the process, which the native side sees to: no JavaScript runs any more. */
export async function runServeRpc({host, port, gpu, threads}: ServeRpcFlags): Promise<void> {
    const address = await resolveHost(host);
    await checkPort(address, port);

    const binding = await openBest(selectBuilds(chooseGpu(gpu), findBuilds()), open);
    checkGpu(gpu, binding.getGpuDeviceInfo().deviceNames);

    await writeToStderr(
        "Warning: llama.cpp's RPC has neither passwords nor encryption. Whoever reaches this port can use, and break into, " +
        "this process. Use it on networks that you trust.\n"
    );
    binding.serveRpc(`${address}:${port}`, threads ?? defaultThreads(binding.getMathCores()));
    throw new Failure(`cannot serve on ${host}:${port}`);
}

function open(build: Build): Opened<Binding> {
    const binding = loadBinding(build.bindingPath);
    return {
        value: binding,
        isUsable: build.gpu === false || binding.getGpuDeviceInfo().deviceNames.length > 0,
        close: () => undefined
    };
}

/** llama.cpp listens on IPv4 addresses only. */
async function resolveHost(host: string): Promise<string> {
    const noAddress = (cause?: unknown) => new Failure(`--host is ${JSON.stringify(host)}, which has no IPv4 address`, {cause});
    if (host === "" || net.isIPv6(host)) // lookup takes these for addresses, whatever the family
        throw noAddress();
    try {
        return (await dns.lookup(host, {family: 4})).address;
    } catch (error) {
        throw noAddress(error);
    }
}

/** Finds what is wrong before llama.cpp does, which does not say. */
async function checkPort(host: string, port: number): Promise<void> {
    const server = net.createServer();
    try {
        await new Promise<void>((resolve, reject) => {
            server.once("error", reject).listen({host, port, exclusive: true}, resolve);
        });
    } catch (error) {
        const {code = "", message} = error as NodeJS.ErrnoException;
        throw new Failure(`cannot listen on ${host}:${port}: ${reasons[code] ?? message}`, {cause: error});
    }
    await new Promise((resolve) => server.close(resolve));
}

const reasons: Record<string, string | undefined> = {
    EADDRINUSE: "the port is in use",
    EACCES: "permission denied",
    EADDRNOTAVAIL: "this machine does not have that address"
};

function writeToStderr(text: string): Promise<void> {
    return new Promise((resolve) => process.stderr.write(text, () => resolve()));
}
