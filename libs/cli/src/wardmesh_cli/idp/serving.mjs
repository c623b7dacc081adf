// What both servers share: settings from the environment, one loopback listener, an orderly end.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export function setting(name, otherwise) {
  const file = process.env[`${name}_FILE`];
  const value = (file ? readFileSync(file, 'utf8').trim() : process.env[name]) || otherwise;
  if (!value) {
    process.stderr.write(`identity provider: ${name} is not set\n`);
    process.exit(78);
  }
  return value;
}

// The checkout's packages are found by an explicit path: this file may be installed far away from them.
export async function library(name, ...parts) {
  return import(pathToFileURL(join(setting('WARDMESH_NODE_MODULES'), name, ...parts)).href);
}

export function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

// oidc-provider refuses to fetch from this machine; exactly these addresses are ours.
export function fetchFrom(own) {
  return (url, options) => {
    const { dispatcher, ...plain } = options;
    return fetch(url, own.some((prefix) => String(url).startsWith(prefix)) ? plain : options);
  };
}

export function logErrors(provider) {
  provider.on('server_error', (_ctx, error) => {
    // The stack names code, never what a request held.
    console.error(JSON.stringify({ level: 'ERROR', message: 'internal error', error: error.name, stack: error.stack }));
  });
}

// `pages` answers the paths that begin with one of its keys, the provider all others.
export function listen({ provider, pages, issuer, port, storage }) {
  const serve = provider.callback();
  const server = createServer((request, response) => {
    const path = new URL(request.url, issuer).pathname;
    const page = Object.keys(pages).find((prefix) => path.startsWith(prefix));
    if (path === '/healthz') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n');
    } else if (page) {
      pages[page](request, response);
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
}
