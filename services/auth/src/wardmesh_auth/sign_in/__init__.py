"""Signing in: of a person here, and of a principal at platforms."""
