import { readFile } from "node:fs/promises";
import { createServer, get } from "node:http";
import { text } from "node:stream/consumers";

const server = createServer(async (request, response) => {
  if (request.url === "/api/health") {
    const [status, body] = await fromSocket().catch(fromFile).catch(() => [200, '{"status": "ok"}']);
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  } else {
    response.end("Shop\n");
  }
});

/** What the entrypoint says of app and migrations: 200, or 503 once something has failed for good. */
async function fromSocket() {
  const socketPath = process.env.ENTRYPOINT_SOCKET;
  if (!socketPath) throw new Error("not under the entrypoint");
  const response = await new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(1000);
    get({ socketPath, path: "/api/health", agent: false, signal }, resolve).on("error", reject);
  });
  return [response.statusCode, await text(response)];
}

async function fromFile() {
  const body = await readFile(process.env.ENTRYPOINT_STATUS_FILE, "utf8");
  return [JSON.parse(body).status === "ok" ? 200 : 503, body];
}

server.listen(process.env.PORT ?? 3000);

// What has begun is answered; then nothing is left to do, and the process ends by itself, with 0.
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => server.close());
