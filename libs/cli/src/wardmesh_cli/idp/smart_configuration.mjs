// The authorization server of the local hospital: SMART App Launch for one FHIR base, as strict as oidc-provider is.

import { renderError } from './pages.mjs';
import { fetchFrom } from './serving.mjs';
import { ADVERTISED, FOR_PEOPLE, FOR_PROGRAMS, IDENTITY } from './smart_scopes.mjs';

const HOUR = 3600;

function clients(names, platforms, publicUrl, secret) {
  const own = Object.keys(platforms).map((id) => `/auth/callback/${id}`);
  const person = {
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: ['/auth/callback', '/oauth/callback', ...own].map((path) => publicUrl + path),
  };
  return [
    { ...person, client_id: names.public, client_name: 'Wardmesh for patients', token_endpoint_auth_method: 'none' },
    {
      ...person,
      client_id: names.asymmetric,
      client_name: 'Wardmesh for clinicians',
      grant_types: [...person.grant_types, 'client_credentials'],
      token_endpoint_auth_method: 'private_key_jwt',
      jwks_uri: `${publicUrl}/.well-known/jwks.json`,
    },
    {
      ...person,
      client_id: names.confidential,
      client_name: 'Wardmesh with a secret',
      client_secret: secret,
      token_endpoint_auth_method: 'client_secret_basic',
    },
  ];
}

function resourceIndicators(base, seconds, errors) {
  return {
    enabled: true,
    defaultResource: async () => base, // SMART clients name it in `aud`
    useGrantedResource: async () => true,
    getResourceServerInfo: async (ctx, resource) => {
      if (resource !== base) throw new errors.InvalidTarget();
      const program = ctx.oidc.params?.grant_type === 'client_credentials';
      return {
        scope: program ? FOR_PROGRAMS : FOR_PEOPLE,
        audience: base,
        accessTokenFormat: 'jwt',
        accessTokenTTL: seconds,
        jwt: { sign: { alg: 'RS256' } },
      };
    },
  };
}

function extraParams(base, launches, errors) {
  return {
    aud: (_ctx, value) => {
      if (value?.replace(/\/$/, '') !== base) throw new errors.InvalidRequest('aud must be the FHIR base');
    },
    launch: (_ctx, value) => {
      if (value !== undefined && !launches.patient(value)) throw new errors.InvalidRequest('launch is unknown or over');
    },
  };
}

function features(base, seconds, errors) {
  return {
    devInteractions: { enabled: false },
    resourceIndicators: resourceIndicators(base, seconds, errors),
    clientCredentials: { enabled: true },
    revocation: { enabled: true, allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId },
    introspection: { enabled: true, allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId },
  };
}

function findAccount(accounts, base) {
  return async (_ctx, id) => {
    const account = Object.hasOwn(accounts, id) && accounts[id];
    if (!account) return undefined;
    const claims = { sub: id, name: account.name, fhirUser: `${base}/${account.fhirUser}` };
    return { accountId: id, claims: async () => claims };
  };
}

export function configuration({ hospital, keys, storage, launches, base, publicUrl, secret, tokenSeconds, errors }) {
  return {
    adapter: storage.adapter,
    clients: clients(hospital.clients, hospital.platforms, publicUrl, secret),
    jwks: keys.jwks,
    // Browsers keep cookies per host name, not per port: the identity provider beside us has its own.
    cookies: { keys: keys.cookies, names: { session: '_hospital', interaction: '_hospital_sign_in', resume: '_hospital_resume' } },
    scopes: [...IDENTITY, ...ADVERTISED],
    responseTypes: ['code'],
    claims: { openid: ['sub'], profile: ['name'], fhirUser: ['fhirUser'] },
    conformIdTokenClaims: false, // SMART wants fhirUser in the identity token itself
    pkce: { required: () => true },
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
    extraParams: extraParams(base, launches, errors),
    features: features(base, tokenSeconds, errors),
    fetch: fetchFrom([`${publicUrl}/.well-known/jwks.json`]),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    // Every sign-in has a grant of its own: two of them may be for different patients.
    loadExistingGrant: async (ctx) => {
      const chosen = ctx.oidc.result?.consent?.grantId;
      return chosen ? ctx.oidc.provider.Grant.find(chosen) : undefined;
    },
    extraTokenClaims: async (_ctx, token) => (token.grantId ? launches.claims(token.grantId) : {}),
    findAccount: findAccount(hospital.accounts, base),
    issueRefreshToken: async (_ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    rotateRefreshToken: true,
    renderError,
    ttl: {
      AccessToken: tokenSeconds,
      AuthorizationCode: 60,
      ClientCredentials: tokenSeconds,
      Grant: 14 * 24 * HOUR,
      IdToken: HOUR,
      Interaction: HOUR,
      RefreshToken: 14 * 24 * HOUR,
      Session: 8 * HOUR,
    },
  };
}
