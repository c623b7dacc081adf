"""Who the caller is, and the only holder of platform tokens."""
