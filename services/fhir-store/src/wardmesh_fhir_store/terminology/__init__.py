"""Code systems and value sets that a datastore holds, as far as searches ask about them (ST-45)."""
