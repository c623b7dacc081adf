// The pages of the local hospital: sign in, choose a patient, allow; and the portal that launches applications.

import { escape, page } from './pages.mjs';

const HOSPITAL = {
  name: 'LOCAL HOSPITAL',
  style: ':root{--accent:#2456a6}@media (prefers-color-scheme:dark){:root{--accent:#8ab4f8}}'
    + 'fieldset{border:1px solid var(--line);border-radius:8px;margin:1rem 0 0;padding:.4rem 1rem .8rem}legend{font-weight:600;padding:0 .3rem}'
    + 'fieldset label{font-weight:400;margin-top:.5rem;display:flex;gap:.6rem;align-items:center}input[type=radio]{width:auto;margin:0;accent-color:var(--accent)}fieldset code{font-size:.8rem;overflow-wrap:anywhere}',
};
const LETTERS = { read: 'read', write: 'change', '*': 'read and change', cruds: 'read and change', cud: 'change', rs: 'read', r: 'open', s: 'search' };
const CONTEXTS = { patient: 'the record of this patient', user: 'every record that you may see', system: 'every record' };
const PLAIN = { openid: 'know who you are', fhirUser: 'know your entry in our directory', profile: 'know your name', offline_access: 'stay connected until you revoke it' };

function words(scope) {
  const found = /^(patient|user|system)\/(\*|[A-Za-z]+)\.(.+)$/.exec(scope);
  if (!found) return PLAIN[scope] ?? '';
  const [, context, type, letters] = found;
  return `${LETTERS[letters] ?? letters} ${type === '*' ? 'everything' : type} in ${CONTEXTS[context]}`;
}

const wishes = (scopes) => scopes.map(words).filter(Boolean).map((wish) => `<li>${escape(wish)}</li>`).join('');

export function signIn({ uid, client, redirectHost, formTarget, accounts, failed }) {
  const who = Object.entries(accounts)
    .map(([name, account]) => `<dt><code>${escape(name)}</code></dt><dd>${escape(account.name)}</dd>`).join('');
  return page('Sign in to Local Hospital', `<h1>Sign in</h1>
<p class="quiet"><strong>${escape(client)}</strong> at <code>${escape(redirectHost)}</code> asks for records of this hospital.</p>
${failed ? '<p class="bad" role="alert">Unknown user or wrong password.</p>' : ''}
<form method="post" action="/interaction/${escape(uid)}" autocomplete="off">
<label for="username">User</label><input id="username" name="username" required autofocus>
<label for="password">Password</label><input id="password" name="password" type="password" required>
<button name="decision" value="sign-in">Sign in</button>
<button class="plain" name="decision" value="deny" formnovalidate>Cancel</button></form>
<dl>${who}</dl><p><small>A hospital for demonstrations. Everybody in it is made up.</small></p>`, formTarget, HOSPITAL);
}

function picker(patients) {
  const choices = Object.entries(patients).map(([id, name], index) => `<label><input type="radio" name="patient"
value="${escape(id)}" required${index ? '' : ' checked'}> ${escape(name)} <code>${escape(id)}</code></label>`).join('');
  return `<fieldset><legend>Which patient is it about?</legend>${choices}</fieldset>`;
}

export function consent({ uid, client, redirectHost, formTarget, scopes, person, about, patients }) {
  return page('Allow access', `<h1>Allow ${escape(client)}?</h1>
<p class="quiet">You are signed in as <strong>${escape(person)}</strong>. You return to <code>${escape(redirectHost)}</code>.</p>
${about ? `<p>It is about <strong>${escape(about)}</strong>.</p>` : ''}
<p>It wants to</p><ul>${wishes(scopes)}</ul>
<form method="post" action="/interaction/${escape(uid)}">${patients ? picker(patients) : ''}
<button name="decision" value="allow">Allow</button>
<button class="plain" name="decision" value="deny" formnovalidate>Refuse</button></form>`, formTarget, HOSPITAL);
}

export function portal({ patients, platforms, formTarget }) {
  const applications = platforms.map((id) => `<option value="${escape(id)}">${escape(id)}</option>`).join('');
  return page('Portal of Local Hospital', `<h1>Launch an application</h1>
<p class="quiet">As from within a record system: the application learns which patient is open.</p>
<form method="post" action="/portal">${picker(patients)}
<label for="platform">Connection</label><select id="platform" name="platform">${applications}</select>
<button>Launch</button></form>`, formTarget, HOSPITAL);
}
