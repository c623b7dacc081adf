// Sign-in, choice of a patient and consent at the local hospital, and launches from its portal.

import { foreign, interactionPages, readForm, samePassword, send } from './forms.mjs';
import { askedScopes, fillGrant } from './grants.mjs';
import { consent, portal, signIn } from './smart_pages.mjs';
import { mayGrant, ownRecord } from './smart_scopes.mjs';

const asked = (details) => String(details.params.scope ?? '').split(' ');

export function interactions({ provider, hospital, issuer, launches }) {
  const { accounts, patients } = hospital;

  function knows(user, password) {
    const account = Object.hasOwn(accounts, user) && accounts[user];
    return samePassword(password, account?.password ?? hospital.password) && Boolean(account);
  }

  // The patient that is settled without a question: of an EHR launch, or the person's own record.
  function settled(details, account) {
    const launched = details.params.launch && asked(details).includes('launch') ? launches.patient(details.params.launch) : '';
    return ownRecord(account) || launched || '';
  }

  const mustChoose = (details, account) => asked(details).includes('launch/patient') && !settled(details, account);

  async function show(response, details, failed = false) {
    const client = await provider.Client.find(details.params.client_id);
    const redirect = new URL(details.params.redirect_uri);
    const facts = { uid: details.uid, client: client.clientName, redirectHost: redirect.host, formTarget: redirect.origin };
    if (details.prompt.name === 'login') return send(response, failed ? 401 : 200, signIn({ ...facts, accounts, failed }));
    const account = accounts[details.session.accountId];
    const patient = settled(details, account);
    return send(response, 200, consent({
      ...facts,
      person: account.name,
      scopes: askedScopes(details).filter(mayGrant(account)),
      about: patients[patient],
      patients: mustChoose(details, account) && patients,
    }));
  }

  async function answerConsent(form, details) {
    const account = accounts[details.session.accountId];
    const chosen = mustChoose(details, account) ? form.get('patient') ?? '' : settled(details, account);
    if (mustChoose(details, account) && !Object.hasOwn(patients, chosen)) return { error: 'access_denied' };
    const grant = new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
    fillGrant(grant, details.prompt.details, mayGrant(account));
    const grantId = await grant.save();
    if (chosen) launches.attach(grantId, { patient: chosen, need_patient_banner: !ownRecord(account) });
    if (details.params.launch) launches.end(details.params.launch);
    return { consent: { grantId } };
  }

  async function answer(request, response, details) {
    const form = await readForm(request);
    const finish = (result) => provider.interactionFinished(request, response, result);
    if (form.get('decision') === 'deny') return finish({ error: 'access_denied' });
    if (details.prompt.name !== 'login') return finish(await answerConsent(form, details));
    const user = form.get('username') ?? '';
    if (!knows(user, form.get('password') ?? '')) return show(response, details, true);
    return finish({ login: { accountId: user } });
  }

  return interactionPages({ provider, issuer, show, answer });
}

export function portalPages({ hospital, launches, base, publicUrl, issuer }) {
  const { patients, platforms } = hospital;
  return async (request, response) => {
    if (request.method !== 'POST') {
      return send(response, 200, portal({ patients, platforms: Object.keys(platforms), formTarget: '*' }));
    }
    const form = await readForm(request);
    const [patient, platform] = [form.get('patient') ?? '', form.get('platform') ?? ''];
    if (foreign(request, issuer) || !Object.hasOwn(patients, patient) || !Object.hasOwn(platforms, platform)) {
      return response.writeHead(400, { 'content-type': 'text/plain' }).end('unknown patient or connection\n');
    }
    const query = new URLSearchParams({ iss: base, launch: launches.begin(patient) });
    return response.writeHead(303, { location: `${publicUrl}/auth/${platform}/login?${query}` }).end();
  };
}
