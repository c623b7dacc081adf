"""The append-only, provable record of every call."""
