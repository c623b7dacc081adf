"""The state directory keeps keys and ports, hides secrets and has one user at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nkeys
import pytest

from wardmesh_cli.account import public_directory
from wardmesh_cli.faults import PortTakenFault, StateInUseFault
from wardmesh_cli.ports import EPHEMERAL, LOWEST, free_port
from wardmesh_cli.state import NATS_USERS, PortBook, State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    state.lock()
    yield state
    state.reset()
    state.unlock()


def test_secrets_are_made_once_and_only_their_owner_may_read_them(state: State) -> None:
    first = state.secret("a.key")
    assert first.stat().st_mode & 0o777 == 0o600
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert state.secret("a.key").read_text() == first.read_text() != state.secret("b.key").read_text()
    assert len(json.loads(state.ring("ring").read_text())) == 1


def test_every_service_has_its_own_broker_key(state: State) -> None:
    public = state.nats_public_keys()
    assert len(set(public.values())) == len(NATS_USERS)
    assert all(value.startswith("U") for value in public.values())
    pair = nkeys.from_seed(state.nats_seed("gateway").read_bytes())
    assert bytes(pair.public_key).decode() == public["WARDMESH_NKEY_GATEWAY"]


def test_ports_are_remembered_and_stay_below_the_ephemeral_range(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    first = PortBook(path)
    taken = {name: first.take(name) for name in ("nats", "postgres", "cerbos")}
    assert len(set(taken.values())) == 3
    assert all(0 < port < EPHEMERAL for port in taken.values())
    first.release()
    again = PortBook(path)
    assert {name: again.take(name) for name in taken} == taken
    again.release()


def test_two_supervisors_never_get_the_same_port(tmp_path: Path) -> None:
    one, two = PortBook(tmp_path / "one.json"), PortBook(tmp_path / "two.json")
    wish = free_port()
    assert one.take("gateway", preferred=wish) == wish
    assert two.take("gateway", preferred=wish) != wish
    with pytest.raises(PortTakenFault, match=f"port {wish} for gateway is taken"):
        two.take("gateway", only=wish)
    one.release()
    two.release()


def test_a_port_that_was_given_to_somebody_is_given_to_nobody_else_for_a_while(tmp_path: Path) -> None:
    every = set(range(LOWEST, EPHEMERAL))
    given = free_port()
    with pytest.raises(OSError, match="no free port"):
        free_port(taken=every - {given})
    book = PortBook(tmp_path / "ports.json")
    kept = book.take("gateway")
    os.truncate(public_directory("ports") / str(kept), 0)  # nobody but its supervisor keeps it now
    with pytest.raises(OSError, match="no free port"):
        free_port(taken=every - {kept})
    book.release()
    assert free_port(taken=every - {kept}) == kept


def test_a_second_supervisor_in_the_same_state_is_refused(state: State) -> None:
    with pytest.raises(StateInUseFault, match=str(os.getpid())):
        State(state.root).lock()


def test_a_reset_forgets_everything_but_the_lock(state: State) -> None:
    old = state.secret("a.key").read_text()
    state.engine_data("postgres").joinpath("PG_VERSION").write_text("18")
    state.reset()
    assert [entry.name for entry in state.root.iterdir()] == ["lock"]
    assert state.secret("a.key").read_text() != old


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to run engines as")
def test_engine_data_below_a_private_directory_moves_to_where_the_engines_account_can_walk(state: State) -> None:
    state.root.parent.chmod(0o700)
    data = state.engine_data("postgres")
    assert state.root not in data.parents
    probe = f"import os; os.setuid(65534); open({str(data / 'x')!r}, 'w').close()"
    subprocess.run([sys.executable, "-I", "-c", probe], check=True, timeout=20)
    state.reset()
    assert not data.exists()
