"""Which documents of the repository are pages under /docs, and where the package holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

FILES: Final = Path(__file__).with_name("documents")
ASYNCAPI: Final = "asyncapi.json"
GROUPS: Final[Mapping[str, str]] = {
    "use": "For people and agents",
    "compliance": "Compliance",
    "operation": "Operation",
}


class Document(Struct, frozen=True):
    """One document: its heading on the index, its file below docs/, and what it is for."""

    group: str
    title: str
    file: str
    about: str

    @property
    def packed(self) -> Path:
        """Where the package holds it."""
        return FILES / self.file.replace("/", "-")


# By the last part of the address.
DOCUMENTS: Final[Mapping[str, Document]] = {
    "clients": Document("use", "Clients", "clients/README.md", "Claude, Cursor, VS Code, opencode and others"),
    "sign-in": Document("use", "Signing in", "sign-in.md", "how a person opens a hospital to an agent"),
    "break-glass": Document("use", "Break-glass", "break-glass.md", "one record in an emergency, and what follows"),
    "healthlake": Document("use", "Datastores", "healthlake.md", "the HealthLake tools, here and at AWS"),
    "smart-server": Document("use", "SMART tools", "smart-server.md", "the 17 tools of the SMART server"),
    "audit-stream": Document(
        "compliance",
        "The audit stream",
        "audit-stream.md",
        "consume, export and verify the ledger with tools of your own",
    ),
    "audit-events": Document(
        "compliance",
        "The audit stream in AsyncAPI",
        "asyncapi.html",
        "every channel, header and event type, field by field",
    ),
    "audit-api": Document(
        "compliance", "The audit API", "audit-api.md", "search, reports, proofs, holds and reviews over HTTP"
    ),
    "detection": Document(
        "compliance", "Detection", "detection.md", "the rules, the directory of people, the review queue"
    ),
    "identity-providers": Document(
        "operation", "Identity providers", "identity-providers.md", "Keycloak, Entra ID, Auth0 and Okta"
    ),
    "store": Document("operation", "The store", "store.md", "loading, change events, terminology, speed"),
    "differences": Document("operation", "Differences", "differences.md", "the store beside other FHIR engines"),
    "architecture": Document("operation", "Architecture", "architecture.md", "how a call travels, and what holds"),
    "glossary": Document("operation", "Glossary", "glossary.md", "the words that the documents use"),
}
