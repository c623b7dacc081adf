"""The SMART App Launch client: discovery, authorization, tokens, revocation; one code for every platform."""
