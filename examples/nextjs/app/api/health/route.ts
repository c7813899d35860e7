import { readFile } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { connection } from "next/server";

/** What the entrypoint says of app and migrations: 200, or 503 once something has failed for good. */
export async function GET() {
  await connection(); // asked for each time, not once when the app is built
  const [status, body] = await fromSocket().catch(fromFile).catch(withoutEntrypoint);
  return new Response(body, {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}

type Health = [status: number, body: string];

async function fromSocket(): Promise<Health> {
  const socketPath = process.env.ENTRYPOINT_SOCKET;
  if (!socketPath) throw new Error("not under the entrypoint");
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const signal = AbortSignal.timeout(1000);
    get({ socketPath, path: "/api/health", agent: false, signal }, resolve).on("error", reject);
  });
  return [response.statusCode ?? 503, await text(response)];
}

async function fromFile(): Promise<Health> {
  // Unless told to ignore it, the build takes a path that it can't know for all of the project's files.
  const body = await readFile(/*turbopackIgnore: true*/ process.env.ENTRYPOINT_STATUS_FILE ?? "", "utf8");
  return [JSON.parse(body).status === "ok" ? 200 : 503, body];
}

/** In development, or where the entrypoint could write nowhere: the app lives, more isn't known. */
function withoutEntrypoint(): Health {
  const timestamp = new Date().toISOString();
  const uptime = Math.floor(process.uptime());
  const health = {
    status: "ok",
    timestamp,
    service: process.env.SERVICE_NAME ?? "app",
    environment: process.env.NODE_ENV,
    version: process.env.APP_VERSION ?? null,
    uptime,
    migrations: { status: "unknown", lastChecked: timestamp },
    app: { status: "running", pid: process.pid, uptime },
  };
  return [200, JSON.stringify(health)];
}
