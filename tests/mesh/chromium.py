"""A person in front of Chromium: opens a link, answers the pages of both sign-ins, and says where it ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

MOST_PAGES = 8
PATIENCE_MS = 60_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """The machine's own browser; without one the test is skipped and says so."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine: the workflow in a browser was NOT tested")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Person:
    """One browser of one person: `name` at our issuer, `account` at the hospital."""

    mesh: Any
    page: Page
    name: str = ""
    account: str = ""
    patient: str = ""
    titles: list[str] = field(default_factory=list[str])

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    async def open(self, url: str) -> str:
        """Title of the page that needs an answer first."""
        self.titles.clear()
        await self.page.goto(url)
        return await self.page.title()

    async def answer(self) -> bool:
        """Answer the page that is shown; False when it asks for nothing."""
        page = self.page
        title = await page.title()
        self.titles.append(title)
        await self._picture(title)
        if await page.locator("#password").count():
            hospital = "Local Hospital" in title
            accounts = self.mesh.ready["hospital"]["accounts"] if hospital else self.mesh.ready["people"]
            user = self.account if hospital else self.name
            assert user, f"nobody is expected to sign in at: {title}"
            await page.fill("#username", user)
            await page.fill("#password", accounts[user]["password"])
            await page.click("button[value=sign-in]")
        elif await page.locator("button[value=allow]").count():
            if self.patient and await page.locator("input[name=patient]").count():
                await page.check(f'input[value="{self.patient}"]')
            await page.click("button[value=allow]")
        else:
            return False
        await page.wait_for_load_state()
        return True

    async def finish(self) -> str:
        """Answer every page; the title of the last one."""
        for _ in range(MOST_PAGES):
            if not await self.answer():
                return self.titles[-1]
        raise AssertionError(f"too many pages: {self.titles}")

    async def sign_in(self, url: str) -> str:
        await self.open(url)
        return await self.finish()

    async def _picture(self, title: str) -> None:
        """For people who want to look: WARDMESH_TEST_PICTURES names a directory."""
        folder = os.environ.get("WARDMESH_TEST_PICTURES", "")
        if folder:
            name = re.sub(r"\W+", "-", f"{self.name or self.account}-{len(self.titles)}-{title}".lower())
            await self.page.screenshot(path=Path(folder) / f"{name}.png")


async def person(mesh: Any, browser: Browser, name: str = "", account: str = "", patient: str = "") -> Person:
    """A browser of its own: nothing is shared with others."""
    context = await browser.new_context(viewport={"width": 900, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return Person(mesh, page, name, account, patient)
