"""Tokens of a certified OpenID provider, got by a real sign-in, verified by our own code."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import engines
from auth.fake_issuer import http_fetch
from wardmesh_auth.identify import Roles, principal_of
from wardmesh_cli.binaries import Binaries
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.identity import people, sign_in
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.tokens import TokenVerifier

pytestmark = pytest.mark.anyio
AUDIENCE = "http://localhost:8000/mcp"


@asynccontextmanager
async def identity_provider(state: Path) -> AsyncIterator[str]:
    binaries, port = Binaries(), engines.free_port()
    issuer = f"http://127.0.0.1:{port}"
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_IDP_ISSUER": issuer,
        "WARDMESH_IDP_PORT": str(port),
        "WARDMESH_IDP_STATE": str(state),
        "WARDMESH_IDP_PEOPLE": str(PEOPLE),
        "WARDMESH_IDP_AGENT_SECRET": "s" * 32,
        "WARDMESH_NODE_MODULES": str(binaries.node_modules()),
        "WARDMESH_AUDIENCE": AUDIENCE,
    }
    command = [str(binaries.node()), str(PEOPLE.parent / "server.mjs")]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(engines.answers, f"{issuer}/healthz"):
                assert process.poll() is None, process.communicate()[1]
                await asyncio.sleep(0.05)
        yield issuer
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate, timeout=20)


async def test_a_person_who_signed_in_becomes_a_principal_with_their_role(tmp_path: Path) -> None:
    doctor = next(person for person in people(PEOPLE) if person.name == "demo_doctor")
    async with identity_provider(tmp_path) as issuer, http_fetch() as fetch:
        token = await sign_in(issuer, AUDIENCE, doctor)
        keys = IssuerKeys(issuer, fetch)
        verifier = TokenVerifier(keys, issuer=issuer, audiences=(AUDIENCE,))
        verified = await verifier.verify(token)
        principal = principal_of(verified, Roles(("roles",), {}))
        assert principal.roles == ("Doctor",)
        assert principal.client_id == "wardmesh-cli"
        assert {"fhir.read", "fhir.write"} <= set(principal.scopes)
        elsewhere = TokenVerifier(keys, issuer=issuer, audiences=("http://localhost:8000/other",))
        with pytest.raises(Unauthenticated):
            await elsewhere.verify(token)
        await keys.close()
