// Sign-in and consent: the two questions that oidc-provider leaves to us.

import { timingSafeEqual, createHash } from 'node:crypto';

import { consentPage, errorPage, signInPage } from './pages.mjs';

const FORM_BYTES = 16 * 1024;

const digest = (text) => createHash('sha256').update(text).digest();

async function readForm(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
    if (text.length > FORM_BYTES) throw new Error('form too large');
  }
  return new URLSearchParams(text);
}

function send(response, status, { headers, body }) {
  response.writeHead(status, headers).end(body);
}

function describe(client, details) {
  const redirect = new URL(details.params.redirect_uri);
  const resources = details.prompt.details.missingResourceScopes ?? {};
  const asked = new Set([...(details.prompt.details.missingOIDCScope ?? []), ...Object.values(resources).flat()]);
  if (asked.size === 0) String(details.params.scope ?? '').split(' ').filter(Boolean).forEach((scope) => asked.add(scope));
  return {
    client: client.clientName ?? client.clientId,
    redirectHost: redirect.host || redirect.protocol,
    // A form's answer is redirected to the client: browsers hold that redirect against form-action too.
    formTarget: redirect.host ? redirect.origin : redirect.protocol,
    scopes: [...asked],
    person: details.session?.accountId ?? '',
  };
}

async function grantFor(provider, details) {
  const { params, session, grantId, prompt } = details;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  return grant.save();
}

export function interactions({ provider, people, issuer }) {
  function knows(user, password) {
    const right = timingSafeEqual(digest(password), digest(people.password));
    return Object.hasOwn(people.people, user) && right;
  }

  async function show(request, response, details, failed = false) {
    const client = await provider.Client.find(details.params.client_id);
    const facts = describe(client, details);
    const page = details.prompt.name === 'login'
      ? signInPage({ ...facts, uid: details.uid, people: people.people, failed })
      : consentPage({ ...facts, uid: details.uid });
    send(response, failed ? 401 : 200, page);
  }

  async function answer(request, response, details) {
    const form = await readForm(request);
    if (form.get('decision') === 'deny') {
      return provider.interactionFinished(request, response, { error: 'access_denied' });
    }
    if (details.prompt.name === 'login') {
      const user = form.get('username') ?? '';
      if (!knows(user, form.get('password') ?? '')) return show(request, response, details, true);
      return provider.interactionFinished(request, response, { login: { accountId: user } });
    }
    const result = { consent: { grantId: await grantFor(provider, details) } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  }

  return async (request, response) => {
    try {
      const origin = request.headers.origin;
      if (request.method === 'POST' && origin && origin !== 'null' && origin !== new URL(issuer).origin) {
        return send(response, 403, errorPage('access_denied'));
      }
      const details = await provider.interactionDetails(request, response);
      if (request.method === 'POST') return await answer(request, response, details);
      return await show(request, response, details);
    } catch (error) {
      if (error.name !== 'SessionNotFound') console.error(JSON.stringify({ level: 'ERROR', message: error.name, stack: error.stack }));
      return send(response, 400, errorPage('session_not_found'));
    }
  };
}
