// A strict SMART authorization server for tests: oidc-provider with the scopes, audiences and launch context of SMART.

import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { configuration } from './configuration.mjs';

const { ISSUER: issuer, PORT: port, NODE_MODULES: modules, CLIENT_JWKS: clientKeys } = process.env;
const base = `${issuer}/fhir`;
const library = join(modules, 'oidc-provider', 'lib', 'index.js');
const { default: Provider, errors } = await import(pathToFileURL(library).href);
const provider = new Provider(issuer, configuration({ base, errors, clientKeys: JSON.parse(clientKeys) }));

// SMART puts the launch context beside the tokens.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/token' && ctx.status === 200 && ctx.body?.access_token && ctx.body.id_token) {
    const role = 'https://example.org/roles#imaging';
    Object.assign(ctx.body, {
      patient: 'p1',
      encounter: 'e1',
      need_patient_banner: false,
      fhirContext: [{ reference: 'ImagingStudy/i1', role }, { reference: 'DiagnosticReport/d1' }],
    });
  }
});

const smartConfiguration = {
  issuer,
  jwks_uri: `${issuer}/jwks`,
  authorization_endpoint: `${issuer}/auth`,
  token_endpoint: `${issuer}/token`,
  revocation_endpoint: `${issuer}/token/revocation`,
  introspection_endpoint: `${issuer}/token/introspection`,
  token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  token_endpoint_auth_signing_alg_values_supported: ['RS384', 'ES384'],
  code_challenge_methods_supported: ['S256'],
  authorization_response_iss_parameter_supported: true,
  grant_types_supported: ['authorization_code', 'client_credentials'],
  scopes_supported: ['openid', 'fhirUser', 'launch/patient', 'offline_access', 'patient/*.rs'],
  capabilities: ['launch-standalone', 'launch-ehr', 'client-public', 'client-confidential-asymmetric', 'permission-v2'],
};

// Signs one person in and allows everything that was asked: the pages are not what is tested here.
async function interact(request, response) {
  const { prompt, session, params, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const accountId = params.login_hint ?? 'person-1';
    return provider.interactionFinished(request, response, { login: { accountId } });
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const serve = provider.callback();
const server = createServer((request, response) => {
  const path = new URL(request.url, issuer).pathname;
  if (path === '/healthz') {
    response.writeHead(200).end('ok');
  } else if (path === '/fhir/.well-known/smart-configuration') {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(smartConfiguration));
  } else if (path.startsWith('/interaction/')) {
    interact(request, response).catch((error) => response.writeHead(400).end(error.name));
  } else {
    serve(request, response);
  }
});
process.on('SIGTERM', () => process.exit(0));
server.listen(Number(port), '127.0.0.1');
