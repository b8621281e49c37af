// Asks Sentry's MCP server for one thing, as an assistant does, and prints what it says.
//
//     node mcp.mjs CLIENTS HOST:PORT TOOL ARGUMENTS
//
// Starts the server that is installed in CLIENTS with the same Node.js, speaks JSON-RPC over its standard streams
// (initialize, tools/call), and ends it. Exits with 1 when the tool says that it failed.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const [clients, authority, tool, parameters] = process.argv.slice(2);

const server = spawn(
  process.execPath,
  [
    `${clients}/node_modules/@sentry/mcp-server/dist/index.js`,
    `--host=${authority}`,
    "--insecure-http",
    // Its telemetry goes nowhere.
    "--sentry-dsn=",
    "--all-skills",
  ],
  { stdio: ["pipe", "pipe", "inherit"] },
);

const waiting = new Map();
createInterface({ input: server.stdout }).on("line", (line) => {
  const message = JSON.parse(line);
  waiting.get(message.id)?.(message);
  waiting.delete(message.id);
});

const send = (message) => server.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);

let last = 0;
const ask = (method, params) => {
  const id = ++last;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  send({ id, method, params });
  return answer;
};

// A server that ends by itself answers nothing any more.
server.on("exit", (code) => process.exit(code || 1));

await ask("initialize", {
  protocolVersion: "2025-06-18",
  capabilities: {},
  clientInfo: { name: "sentrybox-clients", version: "1" },
});
send({ method: "notifications/initialized" });
const { result, error } =
  tool === "tools/list"
    ? await ask("tools/list", {})
    : await ask("tools/call", { name: tool, arguments: JSON.parse(parameters) });
server.removeAllListeners("exit");
const ended = new Promise((resolve) => server.once("exit", resolve));
server.kill();
await ended;

if (tool === "tools/list") {
  for (const { name } of result.tools) console.log(name);
} else {
  for (const part of result?.content ?? []) console.log(part.text);
}
if (error) console.log(JSON.stringify(error));
process.exit(error || result.isError ? 1 : 0);
