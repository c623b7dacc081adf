// Forms of sign-in and consent pages: reading them, answering them, and refusing those of other origins.

import { timingSafeEqual, createHash } from 'node:crypto';

import { errorPage } from './pages.mjs';

const FORM_BYTES = 16 * 1024;

const digest = (text) => createHash('sha256').update(text).digest();

export function samePassword(given, known) {
  return timingSafeEqual(digest(given), digest(known));
}

export async function readForm(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
    if (text.length > FORM_BYTES) throw new Error('form too large');
  }
  return new URLSearchParams(text);
}

export function send(response, status, { headers, body }) {
  response.writeHead(status, headers).end(body);
}

// Our pages send no referrer, so browsers call their origin `null`.
export function foreign(request, issuer) {
  const { origin } = request.headers;
  return Boolean(origin) && origin !== 'null' && origin !== new URL(issuer).origin;
}

// A handler of one interaction: `show` writes its page, `answer` takes its form.
export function interactionPages({ provider, issuer, show, answer }) {
  return async (request, response) => {
    try {
      if (request.method === 'POST' && foreign(request, issuer)) return send(response, 403, errorPage('access_denied'));
      const details = await provider.interactionDetails(request, response);
      if (request.method === 'POST') return await answer(request, response, details);
      return await show(response, details);
    } catch (error) {
      if (error.name !== 'SessionNotFound') console.error(JSON.stringify({ level: 'ERROR', message: error.name, stack: error.stack }));
      return send(response, 400, errorPage('session_not_found'));
    }
  };
}
