// The development identity provider: settings from the environment, one loopback listener, an orderly end.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { configuration } from './configuration.mjs';
import { interactions } from './interactions.mjs';
import { loadKeys } from './keys.mjs';
import { openStorage } from './storage.mjs';

function setting(name) {
  const file = process.env[`${name}_FILE`];
  const value = file ? readFileSync(file, 'utf8').trim() : process.env[name];
  if (!value) {
    process.stderr.write(`identity provider: ${name} is not set\n`);
    process.exit(78);
  }
  return value;
}

const issuer = setting('WARDMESH_IDP_ISSUER');
const port = Number(setting('WARDMESH_IDP_PORT'));
const state = setting('WARDMESH_IDP_STATE');
const people = JSON.parse(readFileSync(setting('WARDMESH_IDP_PEOPLE'), 'utf8'));
const library = join(setting('WARDMESH_NODE_MODULES'), 'oidc-provider', 'lib', 'index.js');
// The checkout's packages are found by an explicit path: this file may be installed far away from them.
const { default: Provider, errors } = await import(pathToFileURL(library).href);

const storage = openStorage(join(state, 'storage.json'));
const keys = loadKeys(join(state, 'keys.json'));
const audience = setting('WARDMESH_AUDIENCE');
const agentSecret = setting('WARDMESH_IDP_AGENT_SECRET');

const provider = new Provider(issuer, configuration({ people, keys, storage, audience, agentSecret, errors }));
provider.on('server_error', (_ctx, error) => {
  // The stack names code, never what a request held.
  console.error(JSON.stringify({ level: 'ERROR', message: 'internal error', error: error.name, stack: error.stack }));
});

const pages = interactions({ provider, people, issuer });
const serve = provider.callback();
const server = createServer((request, response) => {
  const path = new URL(request.url, issuer).pathname;
  if (path === '/healthz') {
    response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n');
  } else if (path.startsWith('/interaction/')) {
    pages(request, response, path);
  } else {
    serve(request, response);
  }
});

function stop() {
  storage.flush();
  server.close(() => process.exit(0));
  server.closeAllConnections();
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
server.on('error', (error) => {
  process.stderr.write(`identity provider: port ${port}: ${error.code}\n`);
  process.exit(71);
});
server.listen(port, '127.0.0.1', () => console.log(JSON.stringify({ level: 'INFO', message: 'ready', port })));
