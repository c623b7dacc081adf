// What this provider allows: one audience, signed JWT access tokens, PKCE always, registration in three ways.

import { fillGrant } from './grants.mjs';
import { renderError } from './pages.mjs';
import { fetchFrom } from './serving.mjs';

const HOUR = 3600;
const ACCESS_TOKEN_SECONDS = 8 * HOUR;
const LOOPBACK_PATHS = ['', '/', '/callback', '/oauth/callback', '/oauth/callback/debug', '/oauth2callback'];

export const WEB_CLIENT = 'wardmesh-web';
const CLAUDE_CODE = 'https://claude.ai/oauth/claude-code-client-metadata';
const MANAGE = ['audit.read', 'audit.manage'];
const ROLE_SCOPES = { Auditor: ['audit.read'], Admin: MANAGE, Compliance: MANAGE };

// Everybody may ask for the first two; the ledger's scopes belong to roles.
export function scopesOf(roles) {
  return ['fhir.read', 'fhir.write', ...new Set(roles.flatMap((role) => ROLE_SCOPES[role] ?? []))];
}

function clients(people, agentSecret, publicUrl) {
  const loopback = ['http://127.0.0.1', 'http://localhost', 'http://[::1]'];
  return [
    {
      client_id: 'wardmesh-cli',
      client_name: 'Wardmesh clients on this machine',
      application_type: 'native', // any loopback port
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: loopback.flatMap((host) => LOOPBACK_PATHS.map((path) => host + path)),
    },
    {
      client_id: WEB_CLIENT, // the gateway itself, for people who come with a browser
      client_name: 'Wardmesh',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: [`${publicUrl}/auth/callback`],
    },
    {
      // Claude Code calls itself by the address of its metadata. Known here, it signs in without a network too.
      client_id: CLAUDE_CODE,
      client_name: 'Claude Code',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: ['http://localhost/callback', 'http://127.0.0.1/callback'],
    },
    {
      client_id: people.agent.client_id,
      client_name: 'Wardmesh agent without a person',
      client_secret: agentSecret,
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ];
}

function tokenClaims(people, token) {
  if (token.kind === 'ClientCredentials') {
    return token.clientId === people.agent.client_id ? { roles: people.agent.roles } : {};
  }
  const person = people.people[token.accountId];
  if (!person) return {};
  const { roles, patient, practitioner } = person;
  return { roles, ...(patient && { patient }), ...(practitioner && { practitioner }) };
}

function resourceIndicators(people, audience, errors) {
  const ours = (resource) => resource === audience || resource === `${audience}/`;
  return {
    enabled: true,
    defaultResource: async (_ctx, _client, oneOf) => oneOf ?? audience,
    useGrantedResource: async () => true,
    getResourceServerInfo: async (_ctx, resource, client) => {
      if (!ours(resource)) throw new errors.InvalidTarget();
      const agent = client.clientId === people.agent.client_id;
      return {
        scope: scopesOf(agent ? people.agent.roles : Object.keys(ROLE_SCOPES)).join(' '),
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: ACCESS_TOKEN_SECONDS,
        jwt: { sign: { alg: 'RS256' } },
      };
    },
  };
}

// The gateway belongs to the same house: a person who is signed in is not asked about it again.
async function grantThatExists(ctx, people, audience) {
  const { client, provider, result, session } = ctx.oidc;
  const known = result?.consent?.grantId ?? session.grantIdFor(client.clientId);
  if (known) return provider.Grant.find(known);
  if (client.clientId !== WEB_CLIENT || !session.accountId) return undefined;
  const grant = new provider.Grant({ accountId: session.accountId, clientId: client.clientId });
  const allowed = new Set(['openid', 'profile', 'offline_access', ...scopesOf(people.people[session.accountId]?.roles ?? [])]);
  const scopes = [...ctx.oidc.requestParamScopes];
  const asked = { missingOIDCScope: scopes, missingResourceScopes: { [audience]: scopes } };
  fillGrant(grant, asked, (scope) => allowed.has(scope));
  await grant.save();
  return grant;
}

function features(people, audience, errors) {
  return {
    devInteractions: { enabled: false },
    resourceIndicators: resourceIndicators(people, audience, errors),
    registration: { enabled: true },
    clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId },
  };
}

export function configuration({ people, keys, storage, audience, publicUrl, agentSecret, documents, errors }) {
  return {
    adapter: storage.adapter,
    clients: clients(people, agentSecret, publicUrl),
    fetch: fetchFrom(documents),
    jwks: keys.jwks,
    cookies: { keys: keys.cookies },
    scopes: ['openid', 'offline_access', 'profile', 'fhir.read', 'fhir.write', 'audit.read', 'audit.manage'],
    responseTypes: ['code'],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'] },
    pkce: { required: () => true },
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'RS384', 'EdDSA'] },
    features: features(people, audience, errors),
    loadExistingGrant: (ctx) => grantThatExists(ctx, people, audience),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    clientBasedCORS: () => true, // no cookie takes part in what may be called across origins
    extraTokenClaims: async (_ctx, token) => tokenClaims(people, token),
    findAccount: async (_ctx, id) => {
      const person = people.people[id];
      if (!person) return undefined;
      return { accountId: id, claims: async () => ({ sub: id, name: person.name, preferred_username: id }) };
    },
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    renderError,
    ttl: {
      AccessToken: ACCESS_TOKEN_SECONDS,
      AuthorizationCode: 60,
      ClientCredentials: ACCESS_TOKEN_SECONDS,
      Grant: 14 * 24 * HOUR,
      IdToken: HOUR,
      Interaction: HOUR,
      RefreshToken: 14 * 24 * HOUR,
      Session: 14 * 24 * HOUR,
    },
  };
}
