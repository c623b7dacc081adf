"""The only service that speaks to FHIR platforms."""
