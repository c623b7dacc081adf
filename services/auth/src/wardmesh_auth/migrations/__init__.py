"""Alembic migrations of auth; `wardmesh-auth migrate` runs them."""
