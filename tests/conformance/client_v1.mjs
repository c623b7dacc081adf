// TypeScript SDK 1: the same smoke test in the handshake era. Arguments: URL, bearer token or "", tool, JSON arguments.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, token, tool, args] = process.argv.slice(2);
const requestInit = token ? { headers: { Authorization: `Bearer ${token}` } } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
const client = new Client({ name: "smoke", version: "1.32.2" });
await client.connect(transport);
const { tools } = await client.listTools();
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
console.log(JSON.stringify({ tools: tools.map((entry) => entry.name), version: transport.protocolVersion, result }));
await client.close();
