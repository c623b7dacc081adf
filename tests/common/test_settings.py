"""Settings come from the environment or from files, and a wrong one is named without its value."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from wardmesh_common.recorder import DEADLINE_SECONDS
from wardmesh_common.settings import BadSettings, BusSettings, load


class Example(BusSettings, kw_only=True):
    secret: str
    limit: int = 3
    share: float = 0.5
    strict: bool = False
    names: list[str] = msgspec.field(default_factory=list[str])


def test_values_are_read_with_their_types() -> None:
    settings = load(
        Example,
        {"WARDMESH_SECRET": "s", "WARDMESH_LIMIT": "7", "WARDMESH_STRICT": "yes", "WARDMESH_NAMES": '["a","b"]'},
    )
    assert (settings.secret, settings.limit, settings.strict, settings.names) == ("s", 7, True, ["a", "b"])
    assert (settings.share, settings.admin_port) == (0.5, 9090)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("from a file\n")
    assert load(Example, {"WARDMESH_SECRET_FILE": str(tmp_path / "s")}).secret == "from a file"
    with pytest.raises(BadSettings, match="WARDMESH_SECRET_FILE"):
        load(Example, {"WARDMESH_SECRET_FILE": str(tmp_path / "absent")})


def test_a_foreign_name_is_accepted_and_ours_wins() -> None:
    aliases = {"secret": "FHIR_GATEWAY_SESSION_SECRET"}
    assert load(Example, {"FHIR_GATEWAY_SESSION_SECRET": "theirs"}, aliases=aliases).secret == "theirs"
    both = {"FHIR_GATEWAY_SESSION_SECRET": "theirs", "WARDMESH_SECRET": "ours"}
    assert load(Example, both, aliases=aliases).secret == "ours"


@pytest.mark.parametrize(
    ("name", "value"), [("LIMIT", "many"), ("STRICT", "perhaps"), ("NAMES", "{"), ("SHARE", "half")]
)
def test_a_wrong_value_names_the_variable_and_never_the_value(name: str, value: str) -> None:
    with pytest.raises(BadSettings) as wrong:
        load(Example, {"WARDMESH_SECRET": "hush", f"WARDMESH_{name}": value})
    assert f"WARDMESH_{name}" in str(wrong.value)
    assert value not in str(wrong.value)


@pytest.mark.parametrize("value", ["0", "0.04", "5.1", "-1", "nan", "inf"])
def test_how_long_a_record_may_take_has_limits_of_its_own(value: str) -> None:
    assert load(BusSettings, {}).audit_deadline_seconds == DEADLINE_SECONDS == 0.25
    assert load(BusSettings, {"WARDMESH_AUDIT_DEADLINE_SECONDS": "2"}).audit_deadline_seconds == 2
    with pytest.raises(BadSettings, match="WARDMESH_AUDIT_DEADLINE_SECONDS must be"):
        load(BusSettings, {"WARDMESH_AUDIT_DEADLINE_SECONDS": value})


def test_a_missing_value_is_named() -> None:
    with pytest.raises(BadSettings, match="WARDMESH_SECRET is not set"):
        load(Example, {})
