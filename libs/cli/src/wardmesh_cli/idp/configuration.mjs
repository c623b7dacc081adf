// What this provider allows: one audience, signed JWT access tokens, PKCE always, registration in three ways.

import { errorPage } from './pages.mjs';

const HOUR = 3600;
const ACCESS_TOKEN_SECONDS = 8 * HOUR;
const LOOPBACK_PATHS = ['', '/', '/callback', '/oauth/callback', '/oauth/callback/debug', '/oauth2callback'];

function clients(people, agentSecret) {
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

function resourceIndicators(audience, errors) {
  const ours = (resource) => resource === audience || resource === `${audience}/`;
  return {
    enabled: true,
    defaultResource: async (_ctx, _client, oneOf) => oneOf ?? audience,
    useGrantedResource: async () => true,
    getResourceServerInfo: async (_ctx, resource) => {
      if (!ours(resource)) throw new errors.InvalidTarget();
      return {
        scope: 'fhir.read fhir.write',
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: ACCESS_TOKEN_SECONDS,
        jwt: { sign: { alg: 'RS256' } },
      };
    },
  };
}

function features(audience, errors) {
  return {
    devInteractions: { enabled: false },
    resourceIndicators: resourceIndicators(audience, errors),
    registration: { enabled: true },
    clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId },
  };
}

export function configuration({ people, keys, storage, audience, agentSecret, errors }) {
  return {
    adapter: storage.adapter,
    clients: clients(people, agentSecret),
    jwks: keys.jwks,
    cookies: { keys: keys.cookies },
    scopes: ['openid', 'offline_access', 'profile', 'fhir.read', 'fhir.write'],
    responseTypes: ['code'],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'] },
    pkce: { required: () => true },
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'RS384', 'EdDSA'] },
    features: features(audience, errors),
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
    renderError: async (ctx, out) => {
      ctx.type = 'html';
      const page = errorPage(out.error);
      ctx.set(page.headers);
      ctx.body = page.body;
    },
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
