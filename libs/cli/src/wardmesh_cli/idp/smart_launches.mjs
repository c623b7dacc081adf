// Launch context: which patient a grant is for, and the launches that the hospital's own portal began.

import { randomBytes } from 'node:crypto';

const LAUNCH_SECONDS = 300;
const GRANT_SECONDS = 14 * 24 * 3600;

export function openLaunches(storage) {
  return {
    begin(patient) {
      const launch = randomBytes(18).toString('base64url');
      storage.remember(`launch:${launch}`, patient, LAUNCH_SECONDS);
      return launch;
    },
    patient: (launch) => storage.recall(`launch:${launch}`),
    end: (launch) => storage.forget(`launch:${launch}`),
    attach: (grantId, context) => storage.remember(`context:${grantId}`, context, GRANT_SECONDS),
    of: (grantId) => storage.recall(`context:${grantId}`),
    // `grant` lets introspection see that a grant was revoked after its access token went out.
    claims(grantId) {
      const patient = storage.recall(`context:${grantId}`)?.patient;
      return { grant: grantId, ...(patient && { patient }) };
    },
    revoke: (jti, seconds) => storage.remember(`revoked:${jti}`, true, seconds),
    revoked: (jti) => storage.recall(`revoked:${jti}`) === true,
  };
}
