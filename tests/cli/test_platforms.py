"""`--platform ID=URL`: a new platform, or one of the catalogue at another address, as fhir-proxy then reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wardmesh_cli.layout import Layout, lay_out, write_platforms
from wardmesh_cli.options import UpOptions
from wardmesh_cli.state import State
from wardmesh_fhir_proxy import platforms_dir

URL = "http://127.0.0.1:9/fhir"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    state = State(tmp_path / "state")
    state.lock()
    layout = lay_out(state, UpOptions(state=state.root))
    yield layout
    layout.ports.release()
    state.reset()
    state.unlock()


def test_a_new_id_becomes_a_platform_that_needs_no_credentials_of_its_own(layout: Layout) -> None:
    found = platforms_dir.load(write_platforms(layout, {"own": URL}, {}))["own"]
    assert (found.bases.patient, found.auth.method, found.live, found.writes, found.open) == (
        URL,
        "none",
        True,
        True,
        False,
    )


@pytest.mark.parametrize("name", ["aetna", "hapi-fhir", "epic"])
def test_an_id_of_the_catalogue_is_called_at_the_new_address_and_stays_what_it_is(layout: Layout, name: str) -> None:
    before = platforms_dir.load()[name]
    found = platforms_dir.load(write_platforms(layout, {name: URL}, {}))[name]
    assert (found.bases.patient, found.auth.method, found.live) == (URL, "none", True)
    assert (found.name, found.type, found.open, found.aliases) == (
        before.name,
        before.type,
        before.open,
        before.aliases,
    )


def test_a_platform_of_an_earlier_start_is_gone_in_the_next_one(layout: Layout) -> None:
    write_platforms(layout, {"own": URL, "aetna": URL}, {})
    found = platforms_dir.load(write_platforms(layout, {}, {}))
    assert "own" not in found
    assert found["aetna"].bases.patient != URL
    assert found["store"].bases.patient == layout.store_url
