"""docs/identity-providers.md is executed: its settings, fed with its tokens, lead to the roles that it promises."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc.jws import serialize_compact

from auth.fake_issuer import FakeIssuer, http_fetch, issuer
from wardmesh_auth.identify import Roles, principal_of
from wardmesh_auth.settings import AuthSettings
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.settings import load
from wardmesh_common.tokens import KEPT_CLAIMS, TokenVerifier
from wardmesh_gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).parents[2] / "docs" / "identity-providers.md").read_text()
PRODUCTS = ("Keycloak", "Microsoft Entra ID", "Auth0", "Okta")
NEEDED = {
    "WARDMESH_DATABASE_URL": "postgresql://x/y",
    "WARDMESH_TOKEN_SEAL_KEY": "k",
    "WARDMESH_WEB_CLIENT_SECRET": "s",
}


def section(product: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Settings and token of one product."""
    text = PAGE.split(f"\n## {product}\n", 1)[1].split("\n## ", 1)[0]
    shell, token = re.findall(r"```(?:shell|json)\n(.*?)```", text, re.DOTALL)
    settings = dict(line.split("=", 1) for line in shell.strip().splitlines())
    settings.pop("WARDMESH_WEB_CLIENT_SECRET_FILE", None)
    return settings, json.loads(token)


def signed(fake: FakeIssuer, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """As the product signs it; a header that it does not send is really absent."""
    now = int(time.time())
    whole = {"iss": fake.url, "iat": now, "exp": now + 600, **claims}
    head = {"alg": "RS256", "kid": fake.rsa.kid, **{name: value for name, value in header.items() if value}}
    return serialize_compact(head, json.dumps(whole), fake.rsa)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_the_settings_make_of_the_token_what_the_page_says(product: str) -> None:
    environ, sample = section(product)
    assert environ["WARDMESH_ISSUER"].startswith("https://")
    async with issuer() as fake, http_fetch() as fetch:
        settings = load(AuthSettings, {**NEEDED, **environ, "WARDMESH_ISSUER": fake.url})
        edge = load(GatewaySettings, {**environ, "WARDMESH_ISSUER": fake.url})
        roles = Roles(settings.role_claims, settings.role_map)
        token = signed(fake, sample["header"], sample["claims"])
        for audiences, types in (
            (settings.all_audiences, settings.token_types),
            ((edge.resource, *edge.audiences), edge.token_types),
        ):
            verifier = TokenVerifier(
                IssuerKeys(fake.url, fetch),
                issuer=fake.url,
                audiences=audiences,
                token_types=types,
                kept_claims=tuple({*KEPT_CLAIMS, *roles.claims}),
            )
            found = principal_of(await verifier.verify(token), roles)
            assert list(found.roles) == sample["roles"]
            assert list(found.scopes) == sample["scopes"]
            assert found.client_id == sample["client"]
            with pytest.raises(Unauthenticated):
                await verifier.verify(signed(fake, sample["header"], {**sample["claims"], "aud": "elsewhere"}))


def test_every_variable_of_the_page_is_a_setting() -> None:
    known = {f"WARDMESH_{name.upper()}" for name in AuthSettings.__struct_fields__}
    named = {name.removesuffix("_FILE") for name in re.findall(r"WARDMESH_[A-Z_]+", PAGE)}
    assert named <= known
