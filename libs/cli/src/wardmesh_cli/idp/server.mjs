// The development identity provider: it signs people in at the gateway and issues tokens for it.

import { join } from 'node:path';

import { configuration } from './configuration.mjs';
import { interactions } from './interactions.mjs';
import { loadKeys } from './keys.mjs';
import { library, listen, logErrors, readJson, setting } from './serving.mjs';
import { openStorage } from './storage.mjs';

const issuer = setting('WARDMESH_IDP_ISSUER');
const state = setting('WARDMESH_IDP_STATE');
const people = readJson(setting('WARDMESH_IDP_PEOPLE'));
const { default: Provider, errors } = await library('oidc-provider', 'lib', 'index.js');

const storage = openStorage(join(state, 'storage.json'));
const provider = new Provider(issuer, configuration({
  people,
  keys: loadKeys(join(state, 'keys.json')),
  storage,
  audience: setting('WARDMESH_AUDIENCE'),
  publicUrl: new URL(setting('WARDMESH_AUDIENCE')).origin,
  agentSecret: setting('WARDMESH_IDP_AGENT_SECRET'),
  documents: setting('WARDMESH_IDP_CLIENT_DOCUMENTS', ' ').split(' ').filter(Boolean),
  errors,
}));
logErrors(provider);
// Who names no scope gets the least that is of any use (RFC 6749, 3.3), instead of a consent to nothing.
provider.use(async (ctx, next) => {
  if (ctx.path === '/auth' && ctx.method === 'GET' && !ctx.query.scope) ctx.query = { ...ctx.query, scope: 'fhir.read' };
  await next();
});
const pages = { '/interaction/': interactions({ provider, people, issuer }) };
listen({ provider, pages, issuer, port: Number(setting('WARDMESH_IDP_PORT')), storage });
