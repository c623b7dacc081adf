// The HTML pages of the identity provider: no script, everything escaped, a policy that allows nothing but our style.

import { randomBytes } from 'node:crypto';

const SCOPES = {
  openid: 'know who you are',
  profile: 'know your name',
  offline_access: 'stay connected without asking again',
  'fhir.read': 'read health records that you may read',
  'fhir.write': 'change health records that you may change',
  'audit.read': 'read the ledger of who did what',
  'audit.manage': 'review, hold and unseal entries of the ledger',
};

const ERRORS = {
  access_denied: 'The request was refused.',
  session_not_found: 'This sign-in has expired or was begun in another browser. Start again from your application.',
  invalid_client: 'The application is not known here.',
  invalid_redirect_uri: 'The application asked to return to an address that it has not registered.',
};

const STYLE = `
:root{color-scheme:light dark;--ink:#14213d;--quiet:#5b6780;--line:#d9dfeb;--card:#fff;--ground:#eef2f9;--accent:#0b6e67;--bad:#a3262a}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf5;--quiet:#9aa7c0;--line:#303a52;--card:#182034;--ground:#0e1424;--accent:#3fb8ad;--bad:#ff8d8f}}
*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{width:min(26rem,92vw);background:var(--card);border:1px solid var(--line);border-radius:14px;padding:2rem;box-shadow:0 10px 40px #0b142a22}
h1{font-size:1.35rem;margin:.2rem 0 .6rem}.mark{color:var(--accent);font-weight:700;letter-spacing:.04em}p{margin:.4rem 0}small,.quiet{color:var(--quiet)}
label{display:block;margin-top:1rem;font-weight:600}input,select{width:100%;padding:.65rem .8rem;margin-top:.3rem;border:1px solid var(--line);border-radius:8px;background:transparent;color:inherit;font:inherit}
button{width:100%;margin-top:1.2rem;padding:.7rem;border:1px solid var(--accent);border-radius:8px;background:var(--accent);color:var(--card);font:inherit;font-weight:600;cursor:pointer}
button.plain{margin-top:.6rem;background:transparent;color:var(--accent)}:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.bad{color:var(--bad);font-weight:600}ul{padding-left:1.2rem}code{background:var(--ground);padding:.1rem .35rem;border-radius:5px}dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem;font-size:.85rem;color:var(--quiet);margin:1.2rem 0 0}dd{margin:0}
`;

const WARDMESH = { name: 'WARDMESH', style: '' };

const MARKS = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
export const escape = (text) => String(text).replace(/[&<>"']/g, (mark) => MARKS[mark]);

export function page(title, content, formTarget = '', brand = WARDMESH) {
  const nonce = randomBytes(16).toString('base64');
  const target = /^(\*|[a-z][a-z0-9+.-]*:(\/\/[a-z0-9.:[\]-]+)?)$/i.test(formTarget) ? ` ${formTarget}` : '';
  return {
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': `default-src 'none'; style-src 'nonce-${nonce}'; form-action 'self'${target}; frame-ancestors 'none'; base-uri 'none'`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
    },
    body: `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escape(title)}</title><style nonce="${nonce}">${STYLE}${brand.style}</style></head>
<body><main><p class="mark">${brand.name}</p>${content}</main></body></html>`,
  };
}

export function signInPage({ uid, client, redirectHost, formTarget, people, failed }) {
  const options = Object.keys(people).map((name) => `<option value="${escape(name)}">`).join('');
  const roles = Object.entries(people)
    .map(([name, person]) => `<dt><code>${escape(name)}</code></dt><dd>${escape(person.roles.join(', '))}</dd>`).join('');
  return page('Sign in', `<h1>Sign in</h1>
<p class="quiet">to continue to <strong>${escape(client)}</strong> at <code>${escape(redirectHost)}</code></p>
${failed ? '<p class="bad" role="alert">Unknown user or wrong password.</p>' : ''}
<form method="post" action="/interaction/${escape(uid)}" autocomplete="off">
<label for="username">User</label><input id="username" name="username" list="people" required autofocus>
<datalist id="people">${options}</datalist>
<label for="password">Password</label><input id="password" name="password" type="password" required>
<button name="decision" value="sign-in">Sign in</button>
<button class="plain" name="decision" value="deny" formnovalidate>Cancel</button></form>
<dl>${roles}</dl>
<p><small>Demonstration accounts with synthetic data. Production brings its own identity provider.</small></p>`, formTarget);
}

export function consentPage({ uid, client, redirectHost, formTarget, scopes, person }) {
  const wishes = scopes.map((scope) => `<li>${escape(SCOPES[scope] ?? scope)}</li>`).join('');
  return page('Allow access', `<h1>Allow ${escape(client)}?</h1>
<p class="quiet">You are signed in as <code>${escape(person)}</code>. You return to <code>${escape(redirectHost)}</code>.</p>
<p>It wants to</p><ul>${wishes}</ul>
<form method="post" action="/interaction/${escape(uid)}">
<button name="decision" value="allow">Allow</button>
<button class="plain" name="decision" value="deny">Refuse</button></form>
<p><small>Every call is decided by policy and recorded, whatever you allow here.</small></p>`, formTarget);
}

export function errorPage(code) {
  return page('Not possible', `<h1>This is not possible</h1><p>${escape(ERRORS[code] ?? 'The request cannot be carried out.')}</p>
<p><small>${escape(code)}</small></p>`);
}

// How both providers answer what oidc-provider refuses in the browser.
export async function renderError(ctx, out) {
  const shown = errorPage(out.error);
  ctx.type = 'html';
  ctx.set(shown.headers);
  ctx.body = shown.body;
}
