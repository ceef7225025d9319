import type {AddonRpcServers, Binding} from "./binding.js";

/** An RPC server can't be used, for a reason that its message gives: no other build of ours would change that. */
export class RpcServerError extends Error {
    override name = "RpcServerError";
}

/** Throws if these are no addresses of RPC servers. */
export function checkRpcServers(servers: readonly string[]): void {
    if (!Array.isArray(servers))
        throw new TypeError(`rpcServers is ${JSON.stringify(servers)}; allowed is a list of addresses such as "192.168.1.20:50052"`);

    for (const [i, server] of servers.entries()) {
        const [, port] = /^[^\s:]+:(\d{1,5})$/.exec(String(server)) ?? [];
        if (port == null || Number(port) < 1 || Number(port) > 65535)
            throw new TypeError(
                `rpcServers[${i}] is ${JSON.stringify(server)}; allowed are addresses such as "192.168.1.20:50052": ` +
                "a name or an IPv4 address, a colon and a port from 1 to 65535"
            );
        if (servers.indexOf(server) !== i)
            throw new TypeError(`rpcServers[${i}] is ${JSON.stringify(server)}, which rpcServers[${servers.indexOf(server)}] is, too`);
    }
}

export type RpcServers = {addresses: readonly string[], native: AddonRpcServers};

export async function connectRpcServers(binding: Binding, addresses: readonly string[]): Promise<RpcServers | undefined> {
    if (addresses.length === 0)
        return undefined;

    const native = new binding.AddonRpcServers(addresses);
    try {
        await native.connect();
    } catch (error) {
        native.dispose();
        throw new RpcServerError((error as Error).message, {cause: error});
    }
    return {addresses, native};
}

/**
 * The addon's exports as node-llama-cpp is to see them: it knows of GPUs only, so RPC servers look like them. Without
 * servers, nothing can be offloaded just because llama.cpp has an RPC backend.
 */
export function withRpcServers(binding: Binding, servers: RpcServers | undefined): Binding {
    const hasGpu = () => (binding.getGpuType() ?? false) !== false;
    if (servers == null)
        return override(binding, {getSupportsGpuOffloading: hasGpu});

    const {addresses, native} = servers;
    return override(binding, {
        getSupportsGpuOffloading: () => true,
        getGpuType: () => binding.getGpuType() || "rpc",
        getGpuVramInfo() {
            const {total, used, unifiedSize} = binding.getGpuVramInfo();
            const memory = native.getMemory();
            return {total: total + memory.total, used: used + memory.total - memory.free, unifiedSize};
        },
        getGpuDeviceInfo: () => ({
            deviceNames: [...addresses.map((address) => `RPC[${address}]`), ...binding.getGpuDeviceInfo().deviceNames]
        }),
        AddonModel: class AddonModel extends binding.AddonModel {
            constructor(path: string, options: object) {
                super(path, options);
                native.offerTo(this);
            }
        }
    });
}

/** The exports can't be written to. */
function override(binding: Binding, replacements: Partial<Binding>): Binding {
    return Object.create(binding, Object.getOwnPropertyDescriptors(replacements)) as Binding;
}
