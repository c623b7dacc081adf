// What a consent becomes: scopes that the person may hand out are granted, the others are refused for good.

const both = (scopes, may) => [scopes.filter(may), scopes.filter((scope) => !may(scope))];

function addOidc(grant, scopes, may) {
  const [granted, refused] = both(scopes, may);
  if (granted.length) grant.addOIDCScope(granted.join(' '));
  if (refused.length) grant.rejectOIDCScope(refused.join(' '));
}

function addResource(grant, resource, scopes, may) {
  const [granted, refused] = both(scopes, may);
  if (granted.length) grant.addResourceScope(resource, granted.join(' '));
  if (refused.length) grant.rejectResourceScope(resource, refused.join(' '));
}

// `details` is what the consent prompt says is missing; `may` tells of one scope whether the person may grant it.
export function fillGrant(grant, details, may) {
  addOidc(grant, details.missingOIDCScope ?? [], may);
  if (details.missingOIDCClaims) grant.addOIDCClaims(details.missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(details.missingResourceScopes ?? {})) {
    addResource(grant, resource, scopes, may);
  }
}

export function askedScopes(details) {
  const asked = new Set(details.prompt.details.missingOIDCScope ?? []);
  Object.values(details.prompt.details.missingResourceScopes ?? {}).flat().forEach((scope) => asked.add(scope));
  return [...asked];
}
