"""The only public face of the mesh: MCP, REST and FHIR."""
