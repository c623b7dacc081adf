"""Somebody who signs in at the clinic of the tests."""

from __future__ import annotations

from typing import Any

from auth.smart_clinic import CLIENT, SECRET, Clinic
from auth.smart_stage import SignIn, platform
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client import SmartClient
from wardmesh_common.sign_in_facts import SignInFacts

OURS = PlatformClient(CLIENT, SECRET)
SCOPES = ("openid", "profile", "launch/patient", "patient/*.read", "offline_access")


def person(smart: SmartClient, server: Clinic, **fields: Any) -> SignIn:
    quirks = SignInFacts(**fields)
    return SignIn(smart, platform(server.base, sign_in=quirks), OURS, SCOPES)
