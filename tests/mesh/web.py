"""A browser made of httpx: keeps cookies, follows redirects and answers the pages of both sign-ins."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx

MOST_STEPS = 20
PAGES = {"accept": "text/html"}
_TITLE = re.compile(r"<title>([^<]*)</title>")
_ACTION = re.compile(r'action="([^"]+)"')


class Web:
    """One browser of one person: `name` at our issuer, `account` at the hospital."""

    def __init__(self, mesh: Any, http: httpx.AsyncClient, name: str, account: str) -> None:
        self.mesh, self.http, self.name, self.account = mesh, http, name, account

    @property
    def cookie(self) -> str:
        return self.http.cookies.get("app_session", "")

    async def sign_in(self, url: str) -> str:
        """Title of the page where it ends."""
        answer = await self.http.get(url, headers=PAGES)
        for _ in range(MOST_STEPS):
            if answer.is_redirect:
                answer = await self.http.get(answer.url.join(answer.headers["location"]), headers=PAGES)
                continue
            form = self._form(answer.text)
            if not form:
                found = _TITLE.search(answer.text)
                assert found, answer.text
                return html.unescape(found[1])
            action = _ACTION.search(answer.text)
            target = answer.url.join(html.unescape(action[1])) if action else answer.url
            answer = await self.http.post(target, data=form, headers=PAGES)
        raise AssertionError("too many steps")

    def _form(self, page: str) -> dict[str, str]:
        if 'name="password"' in page:
            hospital = "Local Hospital" in page
            accounts = self.mesh.ready["hospital"]["accounts"] if hospital else self.mesh.ready["people"]
            user = self.account if hospital else self.name
            assert user, "nobody is expected to sign in here"
            return {"decision": "sign-in", "username": user, "password": accounts[user]["password"]}
        return {"decision": "allow"} if 'value="allow"' in page else {}


@contextlib.asynccontextmanager
async def web(mesh: Any, *, name: str = "", account: str = "") -> AsyncGenerator[Web]:
    headers = {"accept": "application/json"}
    async with httpx.AsyncClient(timeout=90, headers=headers, base_url=mesh.ready["gateway"]) as http:

        async def trusted(_answer: httpx.Response) -> None:
            """Browsers send Secure cookies to this machine without TLS; httpx does not."""
            for cookie in http.cookies.jar:
                cookie.secure = False

        http.event_hooks["response"].append(trusted)
        yield Web(mesh, http, name, account)
