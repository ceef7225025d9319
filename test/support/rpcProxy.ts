// A worker: see startProxy.
import net from "node:net";
import {parentPort, workerData} from "node:worker_threads";

const {port, place} = workerData as {port: number, place: number};

const proxy = net.createServer((client) => {
    const server = net.connect(port, "127.0.0.1");
    client.on("error", () => undefined).on("close", () => server.destroy());
    server.on("error", () => undefined).on("close", () => client.destroy());
    client.pipe(server);

    let read = 0;
    server.on("data", (chunk: Buffer) => {
        if (place >= read && place < read + chunk.length)
            chunk[place - read]! &= 0x7f;
        read += chunk.length;
        client.write(chunk);
    });
});
proxy.listen(0, "127.0.0.1", () => parentPort!.postMessage((proxy.address() as net.AddressInfo).port));
