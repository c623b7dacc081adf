"""Import and export jobs, and the life of datastores: work that outlives the request that asked for it."""
