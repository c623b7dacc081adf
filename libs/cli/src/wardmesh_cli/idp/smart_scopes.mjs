// The SMART scopes that the local hospital knows, literally: oidc-provider compares scopes as text.

const TYPES = [
  '*', 'AllergyIntolerance', 'Appointment', 'CarePlan', 'CareTeam', 'Claim', 'Condition', 'Consent', 'Coverage',
  'Device', 'DiagnosticReport', 'DocumentReference', 'Encounter', 'ExplanationOfBenefit', 'Goal', 'Immunization',
  'Location', 'Medication', 'MedicationRequest', 'MedicationStatement', 'Observation', 'Organization', 'Patient',
  'Practitioner', 'PractitionerRole', 'Procedure', 'Provenance', 'QuestionnaireResponse', 'Schedule', 'ServiceRequest',
];
const READING = ['read', 'r', 's', 'rs'];
const LETTERS = [...READING, 'write', '*', 'c', 'u', 'd', 'cu', 'cud', 'cruds', 'crus', 'rus'];

const spelled = (context, letters) => TYPES.flatMap((type) => letters.map((each) => `${context}/${type}.${each}`));

export const IDENTITY = ['openid', 'profile', 'fhirUser', 'offline_access', 'online_access', 'launch', 'launch/patient'];
const PATIENT = spelled('patient', READING);
const USER = spelled('user', LETTERS);
const SYSTEM = spelled('system', LETTERS);

export const FOR_PEOPLE = [...PATIENT, ...USER].join(' ');
export const FOR_PROGRAMS = SYSTEM.join(' ');

// A few of them, for discovery documents: nobody reads eight hundred.
export const ADVERTISED = ['patient/*.rs', 'patient/*.read', 'user/*.cruds', 'user/*.rs', 'user/*.*', 'user/*.read', 'system/*.rs'];

const isPatient = (account) => account.fhirUser.startsWith('Patient/');

// Patients give away their own record; `user/` belongs to those who care for many.
export function mayGrant(account) {
  const allowed = new Set([...IDENTITY, ...PATIENT, ...(isPatient(account) ? [] : USER)]);
  return (scope) => allowed.has(scope);
}

// The record of the launch: patients are their own, clinicians choose one when the application asks for it.
export function ownRecord(account) {
  return isPatient(account) ? account.fhirUser.slice('Patient/'.length) : '';
}
