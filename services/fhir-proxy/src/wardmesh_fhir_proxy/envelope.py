"""The Bundle envelope: every R4 member declared, resources untouched as raw bytes (fhir.md J1, J2)."""

# ruff: noqa: N815 - members are named as FHIR names them

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

Member = Raw | UnsetType
Text = str | UnsetType


class Link(Struct, kw_only=True, forbid_unknown_fields=True, rename={"url_": "_url", "relation_": "_relation"}):
    id: Member = UNSET
    extension: Member = UNSET
    modifierExtension: Member = UNSET
    relation: str
    relation_: Member = UNSET
    url: Text = UNSET
    url_: Member = UNSET


class Response(
    Struct,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"status_": "_status", "location_": "_location", "etag_": "_etag", "lastModified_": "_lastModified"},
):
    id: Member = UNSET
    extension: Member = UNSET
    modifierExtension: Member = UNSET
    status: Text = UNSET
    status_: Member = UNSET
    location: Text = UNSET
    location_: Member = UNSET
    etag: Text = UNSET
    etag_: Member = UNSET
    lastModified: Member = UNSET
    lastModified_: Member = UNSET
    outcome: Member = UNSET


class Request(Struct, kw_only=True):
    """What a history or transaction entry stands for; only read, written back as it came unless its URL changes."""

    method: str = ""
    url: str = ""


class Entry(Struct, kw_only=True, forbid_unknown_fields=True, dict=True, rename={"fullUrl_": "_fullUrl"}):
    id: Member = UNSET
    extension: Member = UNSET
    modifierExtension: Member = UNSET
    link: list[Link] | UnsetType = UNSET
    fullUrl: Text = UNSET
    fullUrl_: Member = UNSET
    resource: Member = UNSET
    search: Member = UNSET
    request: Member = UNSET
    response: Response | UnsetType = UNSET


class Bundle(
    Struct,
    kw_only=True,
    forbid_unknown_fields=True,
    dict=True,
    rename={
        "id_": "_id",
        "implicitRules_": "_implicitRules",
        "language_": "_language",
        "type_": "_type",
        "timestamp_": "_timestamp",
        "total_": "_total",
    },
):
    resourceType: str
    id: Member = UNSET
    id_: Member = UNSET
    meta: Member = UNSET
    implicitRules: Member = UNSET
    implicitRules_: Member = UNSET
    language: Member = UNSET
    language_: Member = UNSET
    identifier: Member = UNSET
    type: str
    type_: Member = UNSET
    timestamp: Member = UNSET
    timestamp_: Member = UNSET
    total: Member = UNSET
    total_: Member = UNSET
    link: list[Link] | UnsetType = UNSET
    entry: list[Entry] | UnsetType = UNSET
    signature: Member = UNSET


_bundles = msgspec.json.Decoder(Bundle)
_requests = msgspec.json.Decoder(Request)
_entries = msgspec.json.Decoder(Entry)
_members = msgspec.json.Decoder(dict[str, Raw])
_member_lists = msgspec.json.Decoder(list[dict[str, Raw]])
_encoder = msgspec.json.Encoder()
_BUNDLE_NAMES = frozenset(field.encode_name for field in msgspec.structs.fields(Bundle))
_ENTRY_NAMES = frozenset(field.encode_name for field in msgspec.structs.fields(Entry))

SEARCH_OUTCOME = Raw(b'{"mode":"outcome"}')
ANSWERS = frozenset({"searchset", "history", "batch-response", "transaction-response"})


def decode(body: bytes) -> Bundle:
    """Raises msgspec.DecodeError when this is not a Bundle."""
    try:
        return _bundles.decode(body)
    except msgspec.ValidationError:
        return _decode_generic(body)


def answered(body: bytes) -> Bundle | None:
    """The Bundle in what should be one: read at once, without looking first what it is. None = look more closely."""
    try:
        bundle = _bundles.decode(body)
    except msgspec.DecodeError:
        return None
    plain = bundle.id is UNSET or bytes(bundle.id).startswith(b'"')
    return bundle if plain and bundle.resourceType == "Bundle" and bundle.type in ANSWERS else None


def encode(bundle: Bundle) -> bytes:
    entries = entries_of(bundle)
    if "extras" not in bundle.__dict__ and not any("extras" in entry.__dict__ for entry in entries):
        return _encoder.encode(bundle)
    whole = {**_members.decode(_encoder.encode(bundle)), **bundle.__dict__.get("extras", {})}
    if entries:
        parts = [{**_members.decode(_encoder.encode(e)), **e.__dict__.get("extras", {})} for e in entries]
        whole["entry"] = Raw(_encoder.encode(parts))
    return _encoder.encode(whole)


def _decode_generic(body: bytes) -> Bundle:
    """Members we do not know ride along as raw bytes at the Bundle and its entries (J2)."""
    whole = _members.decode(body)
    rest = whole.pop("entry", None)
    bundle, bundle_extras = _known(whole, _bundles, _BUNDLE_NAMES)
    if bundle_extras:
        bundle.__dict__["extras"] = bundle_extras
    if rest is not None:
        bundle.entry = []
        for members in _member_lists.decode(rest):
            entry, extras = _known(members, _entries, _ENTRY_NAMES)
            if extras:
                entry.__dict__["extras"] = extras
            bundle.entry.append(entry)
    return bundle


def _known(
    members: dict[str, Raw], decoder: msgspec.json.Decoder[Any], names: frozenset[str]
) -> tuple[Any, dict[str, Raw]]:
    known = {name: value for name, value in members.items() if name in names}
    extras = {name: value for name, value in members.items() if name not in names}
    return decoder.decode(_encoder.encode(known)), extras


def encode_plain(value: object) -> bytes:
    return _encoder.encode(value)


def request_of(entry: Entry) -> Request:
    return _requests.decode(entry.request) if isinstance(entry.request, Raw) else Request()


def entries_of(bundle: Bundle) -> list[Entry]:
    return bundle.entry if isinstance(bundle.entry, list) else []


def links_of(bundle: Bundle) -> list[Link]:
    return bundle.link if isinstance(bundle.link, list) else []


def outcome_entry(severity: str, code: str, diagnostics: str) -> Entry:
    """An OperationOutcome of ours inside a searchset."""
    return Entry(resource=Raw(operation_outcome(severity, code, diagnostics)), search=SEARCH_OUTCOME)


def operation_outcome(severity: str, code: str, diagnostics: str) -> bytes:
    issue = {"severity": severity, "code": code, "diagnostics": diagnostics}
    return _encoder.encode({"resourceType": "OperationOutcome", "issue": [issue]})
