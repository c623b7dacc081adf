"""The local hospital's authorization server alone, and a browser made of httpx that walks through its pages."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import os
import re
import secrets
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from engines import answers
from wardmesh_cli import hospital
from wardmesh_cli.account import spawn_options
from wardmesh_cli.binaries import Binaries

CLIENT_SECRET = "a-secret-of-this-test-that-is-long-enough"
FACTS = hospital.facts()
PUBLIC, ASYMMETRIC, CONFIDENTIAL = (FACTS["clients"][kind] for kind in ("public", "asymmetric", "confidential"))
READING = "openid fhirUser offline_access launch/patient patient/*.rs"


@dataclass
class Hospital:
    issuer: str
    base: str
    public_url: str
    log: Path

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}/auth/callback"


@contextlib.contextmanager
def server(folder: Path, port: int, *, base: str, public_url: str, **settings: str) -> Generator[Hospital]:
    issuer = f"http://127.0.0.1:{port}"
    binaries = Binaries()
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_SMART_ISSUER": issuer,
        "WARDMESH_SMART_BASE": base,
        "WARDMESH_SMART_PORT": str(port),
        "WARDMESH_SMART_STATE": str(folder),
        "WARDMESH_SMART_HOSPITAL": str(hospital.HOSPITAL),
        "WARDMESH_SMART_CLIENT_SECRET": CLIENT_SECRET,
        "WARDMESH_NODE_MODULES": str(binaries.node_modules()),
        "WARDMESH_PUBLIC_URL": public_url,
        **settings,
    }
    log = folder / "hospital.log"
    with log.open("ab") as out:
        command = [str(binaries.node()), str(hospital.HOSPITAL.parent / "smart_server.mjs")]
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, **spawn_options())
    try:
        limit = time.monotonic() + 60
        while not answers(f"{issuer}/healthz"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield Hospital(issuer, base, public_url, log)
    finally:
        process.terminate()
        process.wait(10)


class Visit:
    """One browser at the hospital's pages; `verifier` and `pages` are those of the last sign-in."""

    def __init__(self, place: Hospital, client_id: str = PUBLIC) -> None:
        self.place, self.client_id = place, client_id
        self.http = httpx.Client(timeout=20)
        self.verifier = ""
        self.pages: list[str] = []

    def close(self) -> None:
        self.http.close()

    def question(self, scope: str = READING, **changes: str) -> dict[str, str]:
        self.verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "client_id": self.client_id,
            "response_type": "code",
            "redirect_uri": self.place.redirect_uri,
            "scope": scope,
            "state": "s",
            "nonce": "n",
            "aud": self.place.base,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in {**asked, **changes}.items() if value}

    def sign_in(
        self, user: str, scope: str = READING, patient: str = "", password: str = "", **changes: str
    ) -> dict[str, str]:
        """Parameters that come back to the application."""
        url = f"{self.place.issuer}/auth?{httpx.QueryParams(self.question(scope, **changes))}"
        answer = self.http.get(url)
        self.pages = []
        for _ in range(10):
            if answer.is_redirect:
                target = str(httpx.URL(str(answer.url)).join(answer.headers["location"]))
                if target.startswith(self.place.public_url):
                    return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
                answer = self.http.get(target)
                continue
            assert answer.status_code == 200, answer.text
            self.pages.append(answer.text)
            form = {"decision": "allow"}
            if 'name="password"' in answer.text:
                form = {"decision": "sign-in", "username": user, "password": password or "DemoPass123!"}
            elif patient:
                form["patient"] = patient
            action = re.search(r'action="([^"]+)"', answer.text)
            assert action
            answer = self.http.post(self.place.issuer + html.unescape(action[1]), data=form)
        raise AssertionError("too many pages")

    def token(self, form: dict[str, str], **extra: Any) -> httpx.Response:
        public = {"client_id": self.client_id} if self.client_id == PUBLIC else {}
        return self.http.post(f"{self.place.issuer}/token", data={**public, **form}, **extra)

    def exchange(self, code: str, verifier: str = "", **extra: Any) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.place.redirect_uri}
        return self.token({**form, "code_verifier": verifier or self.verifier}, **extra)

    def refresh(self, token: str, **extra: Any) -> httpx.Response:
        return self.token({"grant_type": "refresh_token", "refresh_token": token}, **extra)

    def tokens(self, user: str, scope: str = READING, patient: str = "", **changes: str) -> dict[str, Any]:
        answer = self.exchange(self.sign_in(user, scope, patient, **changes)["code"])
        assert answer.status_code == 200, answer.text
        return answer.json()
