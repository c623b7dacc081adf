// TypeScript client 2: lists the tools and calls one. Arguments: URL, bearer token or "", era mode, tool, JSON arguments.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, token, mode, tool, args] = process.argv.slice(2);
const requestInit = token ? { headers: { Authorization: `Bearer ${token}` } } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
const client = new Client({ name: "smoke", version: "2.4.0" }, { versionNegotiation: { mode } });
await client.connect(transport);
const { tools } = await client.listTools();
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
console.log(JSON.stringify({ tools: tools.map((entry) => entry.name), version: client.getNegotiatedProtocolVersion(), result }));
await client.close();
