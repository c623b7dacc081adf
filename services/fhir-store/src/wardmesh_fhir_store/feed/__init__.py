"""Tells the bus which versions were committed (ST-73): from the outbox to the stream STORE."""
