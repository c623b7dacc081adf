// The authorization server of the local hospital, whose FHIR base is the embedded store behind SMART tokens.

import { join } from 'node:path';

import { loadKeys } from './keys.mjs';
import { library, listen, logErrors, readJson, setting } from './serving.mjs';
import { configuration } from './smart_configuration.mjs';
import { interactions, portalPages } from './smart_interactions.mjs';
import { openLaunches } from './smart_launches.mjs';
import { askForConsent, launchContext, structuredTokens } from './smart_tokens.mjs';
import { openStorage } from './storage.mjs';

const issuer = setting('WARDMESH_SMART_ISSUER');
const base = setting('WARDMESH_SMART_BASE');
const publicUrl = setting('WARDMESH_PUBLIC_URL');
const state = setting('WARDMESH_SMART_STATE');
const hospital = readJson(setting('WARDMESH_SMART_HOSPITAL'));
const { default: Provider, errors } = await library('oidc-provider', 'lib', 'index.js');
const jose = await library('jose', 'dist', 'webapi', 'index.js');

const storage = openStorage(join(state, 'storage.json'));
const launches = openLaunches(storage);
const keys = loadKeys(join(state, 'keys.json'));
const provider = new Provider(issuer, configuration({
  hospital,
  keys,
  storage,
  launches,
  base,
  publicUrl,
  secret: setting('WARDMESH_SMART_CLIENT_SECRET'),
  tokenSeconds: Number(setting('WARDMESH_SMART_TOKEN_SECONDS', '600')),
  errors,
}));
logErrors(provider);
provider.use(askForConsent);
provider.use(launchContext(launches, base));
provider.use(structuredTokens({ provider, launches, base, keys, jose }));
const pages = {
  '/interaction/': interactions({ provider, hospital, issuer, launches }),
  '/portal': portalPages({ hospital, launches, base, publicUrl, issuer }),
};
listen({ provider, pages, issuer, port: Number(setting('WARDMESH_SMART_PORT')), storage });
