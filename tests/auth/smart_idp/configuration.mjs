// What the strict server insists on: PKCE, registered clients of every kind, the FHIR base as audience, rotation.

import { generateKeyPairSync } from 'node:crypto';

const REDIRECT = 'http://127.0.0.1:1/callback';
const RESOURCE_SCOPES = [
  'patient/*.rs', 'patient/Patient.rs', 'patient/Observation.rs', 'patient/*.cruds', 'user/*.rs', 'system/*.rs',
];

function clients(keys) {
  const code = { redirect_uris: [REDIRECT], response_types: ['code'], grant_types: ['authorization_code', 'refresh_token'] };
  const signed = (alg) => ({ token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: alg, jwks: keys });
  const alone = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
  return [
    { ...code, client_id: 'public', token_endpoint_auth_method: 'none', application_type: 'native' },
    { ...code, client_id: 'basic', client_secret: 'a secret+with/odd:characters%20', application_type: 'native' },
    { ...code, client_id: 'post', client_secret: 'another-secret-of-this-test', token_endpoint_auth_method: 'client_secret_post', application_type: 'native' },
    { ...code, client_id: 'rsa', ...signed('RS384'), application_type: 'native' },
    { ...code, client_id: 'ec', ...signed('ES384'), application_type: 'native' },
    { ...alone, client_id: 'backend', client_secret: 'a-third-secret-of-this-test' },
    { ...alone, client_id: 'backend-ec', ...signed('ES384') },
    { ...alone, client_id: 'backend-rsa', ...signed('RS384') },
  ];
}

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'platform-1', use: 'sig', alg: 'RS256' };
}

function resources(base, errors) {
  return {
    enabled: true,
    defaultResource: async () => base,
    useGrantedResource: async () => true,
    getResourceServerInfo: async (_ctx, resource) => {
      if (resource !== base) throw new errors.InvalidTarget();
      return {
        scope: RESOURCE_SCOPES.join(' '),
        audience: base,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: 'RS256' } },
      };
    },
  };
}

export function configuration({ base, errors, clientKeys }) {
  return {
    clients: clients(clientKeys),
    jwks: { keys: [signingKey()] },
    cookies: { keys: ['cookies of this test'] },
    scopes: ['openid', 'offline_access', 'fhirUser', 'launch', 'launch/patient', ...RESOURCE_SCOPES],
    claims: { openid: ['sub'], fhirUser: ['fhirUser'] },
    conformIdTokenClaims: false,
    responseTypes: ['code'],
    pkce: { required: () => true },
    extraParams: {
      // SMART: the request must name the FHIR server that the token is for.
      aud: async (_ctx, value) => {
        if (value !== base) throw new errors.InvalidRequest('aud is not this FHIR server');
      },
      launch: async (_ctx, value) => {
        if (value !== undefined && value !== 'launch-1') throw new errors.InvalidRequest('unknown launch');
      },
    },
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: resources(base, errors),
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async () => true },
    },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    extraTokenClaims: async (_ctx, token) => (token.kind === 'AccessToken' ? { patient: 'p1' } : {}),
    findAccount: async (_ctx, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, fhirUser: `${base}/Patient/p1` }),
    }),
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    ttl: { AccessToken: 600, AuthorizationCode: 60, ClientCredentials: 300, Grant: 3600, IdToken: 600, Interaction: 600, RefreshToken: 3600, Session: 3600 },
  };
}
