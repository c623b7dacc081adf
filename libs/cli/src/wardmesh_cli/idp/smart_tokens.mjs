// What SMART adds to the endpoints: launch context in token answers, and JWT access tokens at revocation and introspection.

const OFFLINE = 'offline_access';

// OpenID gives offline access only after a consent that was asked for by name. Here consent is always asked.
export async function askForConsent(ctx, next) {
  const { scope = '', prompt } = ctx.query;
  const offline = typeof scope === 'string' && scope.split(' ').includes(OFFLINE);
  if (ctx.path === '/auth' && offline && prompt === undefined) ctx.query = { ...ctx.query, prompt: 'consent' };
  await next();
}

// oidc-provider tells only the scopes of the resource; SMART wants all that were granted.
function granted(grant, base, asked) {
  const held = new Set([...grant.getOIDCScope().split(' '), ...grant.getResourceScope(base).split(' ')]);
  return asked.filter((scope) => held.has(scope)).join(' ');
}

export function launchContext(launches, base) {
  return async (ctx, next) => {
    await next();
    const grant = ctx.oidc?.entities?.Grant;
    if (ctx.oidc?.route !== 'token' || ctx.status !== 200 || !grant) return;
    const { AuthorizationCode: code, RefreshToken: refresh } = ctx.oidc.entities;
    const asked = ctx.oidc.params.scope?.split(' ') ?? [...(code ?? refresh).scopes];
    Object.assign(ctx.body, { scope: granted(grant, base, asked), ...launches.of(grant.jti) });
  };
}

// oidc-provider keeps no JWT and so leaves them alone; a client that proved itself may still ask about its own.
export function structuredTokens({ provider, launches, base, keys, jose }) {
  const known = jose.createLocalJWKSet({ keys: keys.jwks.keys.map(({ kty, n, e, kid, alg }) => ({ kty, n, e, kid, alg })) });

  async function read(token, clientId) {
    try {
      const { payload } = await jose.jwtVerify(token, known, { issuer: provider.issuer, audience: base });
      return payload.client_id === clientId ? payload : undefined;
    } catch {
      return undefined;
    }
  }

  async function describe(payload) {
    if (!payload || launches.revoked(payload.jti)) return { active: false };
    if (payload.grant && !(await provider.Grant.find(payload.grant))) return { active: false };
    const { grant, ...claims } = payload;
    return { active: true, token_type: 'Bearer', ...claims, ...(grant && launches.of(grant)) };
  }

  return async (ctx, next) => {
    await next();
    const { oidc } = ctx;
    if (ctx.status !== 400 || ctx.body?.error !== 'unsupported_token_type' || !oidc?.client) return;
    const payload = await read(oidc.params.token, oidc.client.clientId);
    ctx.status = 200;
    if (oidc.route === 'introspection') {
      ctx.body = await describe(payload);
    } else {
      if (payload) launches.revoke(payload.jti, payload.exp - Math.floor(Date.now() / 1000));
      ctx.body = '';
    }
  };
}
