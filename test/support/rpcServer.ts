import {spawn} from "node:child_process";
import net from "node:net";
import process from "node:process";
import {Worker} from "node:worker_threads";
import type {ChildProcess} from "node:child_process";
import {cliPath} from "./cli.js";

export type RpcServer = {
    address: string,
    port: number,
    child: ChildProcess,

    /** How many graphs it has computed, those that are repeated included. */
    graphs(): number,

    /** Resolves once the process has ended. */
    kill(signal?: NodeJS.Signals): Promise<number | null>
};

/** Starts `reattend serve-rpc` on one thread; resolves once it listens. */
export async function startRpcServer(port?: number): Promise<RpcServer> {
    for (let attempt = 1; ; attempt++) {
        const chosen = port ?? await findFreePort();
        const child = spawn(process.execPath, [cliPath, "serve-rpc", "--port", String(chosen), "--threads", "1"], {
            env: {...process.env, GGML_RPC_DEBUG: "1"}
        });
        const ended = new Promise<number | null>((resolve) => child.on("close", resolve));

        let errors = "";
        child.stderr.on("data", (chunk: Buffer) => {
            errors += chunk.toString();
        });
        const listens = await new Promise<boolean>((resolve) => {
            let output = "";
            child.stdout.on("data", (chunk: Buffer) => {
                output += chunk.toString();
                if (output.includes("Listening\n"))
                    resolve(true);
            });
            void ended.then(() => resolve(false));
        });
        if (listens)
            return {
                address: `127.0.0.1:${chosen}`,
                port: chosen,
                child,
                graphs: () => errors.match(/\[graph_(re)?compute\]/g)?.length ?? 0,
                kill(signal = "SIGKILL") {
                    child.kill(signal);
                    return ended;
                }
            };
        if (attempt === 5) // another process may have taken the port
            throw new Error(`reattend serve-rpc does not start: ${errors}`);
    }
}

/** A port that was free a moment ago. */
export async function findFreePort(): Promise<number> {
    const server = await listen(net.createServer());
    const {port} = server.address() as net.AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    return port;
}

export async function listen(server: net.Server): Promise<net.Server> {
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    return server;
}

/** Where the bytes of a server's answer to HELLO are: its size in 64 bits, then its versions, then what it says of emulation. */
export const helloAnswer = {size: 8 + 28, major: 8, minor: 9, patch: 10, emulation: 11} as const;

/** A server that answers every client with these bytes, and nothing else. */
export async function startFakeServer(answer: Uint8Array | undefined): Promise<{address: string, close(): void}> {
    const sockets = new Set<net.Socket>();
    const server = await listen(net.createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => undefined);
        socket.once("data", () => {
            if (answer != null)
                socket.write(answer);
        });
    }));
    return {
        address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
        close() {
            server.close();
            sockets.forEach((socket) => socket.destroy());
        }
    };
}

/** The answer to HELLO of a server. Upstream's leave the byte about emulation 0. */
export function answerToHello(major: number, minor: number, patch: number, emulation: number): Uint8Array {
    const answer = Buffer.alloc(helloAnswer.size);
    answer.writeBigUInt64LE(BigInt(helloAnswer.size - 8));
    answer.set([major, minor, patch, emulation], helloAnswer.major);
    return answer;
}

/** Passes everything on between clients and a server, but says that the server has no kernels for emulation. */
export async function startProxy(port: number): Promise<{address: string, close(): Promise<unknown>}> {
    // in a thread of its own: some calls of llama.cpp keep this one waiting for an answer
    const worker = new Worker(new URL("./rpcProxy.js", import.meta.url), {workerData: {port, place: helloAnswer.emulation}});
    const proxyPort = await new Promise<number>((resolve, reject) => worker.on("message", resolve).on("error", reject));
    return {address: `127.0.0.1:${proxyPort}`, close: () => worker.terminate()};
}
