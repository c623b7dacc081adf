"""The only service that speaks to Cerbos."""
