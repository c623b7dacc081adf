// Sign-in and consent at the identity provider: the two questions that oidc-provider leaves to us.

import { WEB_CLIENT, scopesOf } from './configuration.mjs';
import { interactionPages, readForm, samePassword, send } from './forms.mjs';
import { askedScopes, fillGrant } from './grants.mjs';
import { consentPage, signInPage } from './pages.mjs';

const IDENTITY = ['openid', 'profile', 'offline_access'];

function describe(client, details) {
  const redirect = new URL(details.params.redirect_uri);
  const scopes = askedScopes(details);
  return {
    client: client.clientName ?? client.clientId,
    redirectHost: redirect.host || redirect.protocol,
    // A form's answer is redirected to the client: browsers hold that redirect against form-action too, and
    // every further one. The gateway sends people on to any platform.
    formTarget: client.clientId === WEB_CLIENT ? '*' : redirect.host ? redirect.origin : redirect.protocol,
    scopes: scopes.length ? scopes : String(details.params.scope ?? '').split(' ').filter(Boolean),
    person: details.session?.accountId ?? '',
  };
}

export function interactions({ provider, people, issuer }) {
  function knows(user, password) {
    return samePassword(password, people.password) && Object.hasOwn(people.people, user);
  }

  function mayGrant(account) {
    const allowed = new Set([...IDENTITY, ...scopesOf(people.people[account]?.roles ?? [])]);
    return (scope) => allowed.has(scope);
  }

  // Somebody else signs in with the same browser: the sign-in goes on in a session of its own.
  async function forgetOther(details, user) {
    if (!details.session || details.session.accountId === user) return;
    const other = await provider.Session.findByUid(details.session.uid);
    if (other) await other.destroy();
    details.session = undefined;
    await details.save(details.exp - Math.floor(Date.now() / 1000));
  }

  async function grantFor(details) {
    const { params, session, grantId, prompt } = details;
    const known = grantId && await provider.Grant.find(grantId);
    const grant = known || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    fillGrant(grant, prompt.details, mayGrant(session.accountId));
    return grant.save();
  }

  async function show(response, details, failed = false) {
    const client = await provider.Client.find(details.params.client_id);
    const facts = describe(client, details);
    const may = mayGrant(facts.person);
    const page = details.prompt.name === 'login'
      ? signInPage({ ...facts, uid: details.uid, people: people.people, failed })
      : consentPage({ ...facts, scopes: facts.scopes.filter(may), uid: details.uid });
    send(response, failed ? 401 : 200, page);
  }

  async function answer(request, response, details) {
    const form = await readForm(request);
    if (form.get('decision') === 'deny') {
      return provider.interactionFinished(request, response, { error: 'access_denied' });
    }
    if (details.prompt.name === 'login') {
      const user = form.get('username') ?? '';
      if (!knows(user, form.get('password') ?? '')) return show(response, details, true);
      await forgetOther(details, user);
      return provider.interactionFinished(request, response, { login: { accountId: user } });
    }
    const result = { consent: { grantId: await grantFor(details) } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  }

  return interactionPages({ provider, issuer, show, answer });
}
