"""Accounts that live here, for demonstrations and small sites (SH-9)."""
