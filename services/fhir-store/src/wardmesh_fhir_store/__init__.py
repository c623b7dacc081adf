"""Embedded FHIR R4 store on PostgreSQL for development and small sites."""
