"""The tables (fhir.md §4.2): versions append only, one current row per resource, index rows of current versions.

`datastore_id` leads every key. `parameter` is `definitions.parameter_key(type, code)`; `resource_key` stands for
(type, id) so that index rows stay small.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

metadata = MetaData()


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id: readers of feeds stop at the oldest one still running."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def _ordered() -> Text:
    """Byte order: prefix searches become ranges and every replica sorts alike."""
    return Text(collation="C")


datastore = Table(
    "datastore",
    metadata,
    Column("datastore_id", Integer, Identity(always=True), primary_key=True),
    Column("public_id", _ordered(), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("fhir_version", Text, nullable=False, server_default="R4"),
    Column("tags", JSONB, nullable=False, server_default="{}"),
    Column("client_token", Text),
    Column("link_key", LargeBinary, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("options", JSONB, nullable=False, server_default="{}"),
    Column("namespace", _ordered(), nullable=False, server_default="us-west-2"),
    Column("status_since", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("settings", JSONB, nullable=False, server_default="{}"),
    Column("request_hash", LargeBinary),
    Column("worker", Text),
    Column("lease_until", DateTime(timezone=True)),
    UniqueConstraint("namespace", "client_token", name="datastore_token"),
)

current = Table(
    "fhir_current",
    metadata,
    Column("datastore_id", Integer, primary_key=True),
    Column("resource_type", _ordered(), primary_key=True),
    Column("resource_id", _ordered(), primary_key=True),
    Column("resource_key", BigInteger, Identity(always=True), nullable=False),
    Column("version", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("last_updated", DateTime(timezone=True), nullable=False),
    Index("fhir_current_key", "datastore_id", "resource_key", unique=True),
    Index("fhir_current_walk", "datastore_id", "resource_type", "resource_key", postgresql_where=text("NOT deleted")),
    Index("fhir_current_updated", "datastore_id", "resource_type", "last_updated", "resource_key"),
)

version = Table(
    "fhir_version",
    metadata,
    Column("datastore_id", Integer, primary_key=True),
    Column("resource_type", _ordered(), primary_key=True),
    Column("resource_id", _ordered(), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("last_updated", DateTime(timezone=True), nullable=False),
    Column("sequence", BigInteger, Identity(always=True), nullable=False),
    Column("transaction_id", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("method", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary),
    Column("meta_revision", Integer, nullable=False, server_default="0"),  # counts $meta-add and $meta-delete
    Column("data_at", BigInteger),  # where the base64 of a Binary begins that can be read in slices
    Index("fhir_version_type", "datastore_id", "resource_type", "last_updated", "sequence"),
    Index("fhir_version_all", "datastore_id", "last_updated", "sequence"),
)


def _index_table(name: str, *columns: Column[object], lead: tuple[str, ...]) -> Table:
    return Table(
        name,
        metadata,
        Column("datastore_id", Integer, nullable=False),
        Column("parameter", Integer, nullable=False),
        Column("resource_key", BigInteger, nullable=False),
        *columns,
        Index(f"{name}_value", "datastore_id", *lead, "resource_key"),
        Index(f"{name}_resource", "datastore_id", "resource_key", "parameter"),
    )


token = _index_table(
    "idx_token",
    Column("system", _ordered(), nullable=False),
    Column("code", _ordered(), nullable=False),
    Column("key", _ordered(), nullable=False),
    lead=("parameter", "key"),
)
string = _index_table(
    "idx_string",
    Column("value", _ordered(), nullable=False),
    Column("folded", _ordered(), nullable=False),
    lead=("parameter", "folded"),
)
date = _index_table(
    "idx_date",
    Column("low", DateTime(timezone=True), nullable=False),
    Column("high", DateTime(timezone=True), nullable=False),
    lead=("parameter", "low", "high"),
)
number = _index_table("idx_number", Column("low", Numeric), Column("high", Numeric), lead=("parameter", "low", "high"))
quantity = _index_table(
    "idx_quantity",
    Column("low", Numeric),
    Column("high", Numeric),
    Column("system", _ordered(), nullable=False),
    Column("code", _ordered(), nullable=False),
    Column("unit", _ordered(), nullable=False),
    lead=("parameter", "low", "high"),
)
reference = _index_table(
    "idx_ref",
    Column("target_type", _ordered(), nullable=False),
    Column("target_id", _ordered(), nullable=False),
    Column("target_version", _ordered(), nullable=False),
    Column("url", _ordered(), nullable=False),
    lead=("target_type", "target_id", "parameter"),
)
uri = _index_table("idx_uri", Column("value", _ordered(), nullable=False), lead=("parameter", "value"))
# One row per repetition: the first component is always a token; the second is a token, string, reference or uri in
# `text_1` to `text_4`, a quantity or number there and in `low`, `high`, or a date; a third is a number.
composite = _index_table(
    "idx_composite",
    Column("system", _ordered(), nullable=False),
    Column("code", _ordered(), nullable=False),
    Column("key", _ordered(), nullable=False),
    Column("text_1", _ordered(), nullable=False),
    Column("text_2", _ordered(), nullable=False),
    Column("text_3", _ordered(), nullable=False),
    Column("text_4", _ordered(), nullable=False),
    Column("low", Numeric),
    Column("high", Numeric),
    Column("starts", DateTime(timezone=True)),
    Column("ends", DateTime(timezone=True)),
    Column("low_3", Numeric),
    Column("high_3", Numeric),
    lead=("parameter", "key", "low"),
)

# Search parameter type → its table; the key of `indexing.Rows` is the short name of the table.
INDEX_TABLES: dict[str, Table] = {
    "token": token,
    "string": string,
    "date": date,
    "number": number,
    "quantity": quantity,
    "ref": reference,
    "uri": uri,
    "composite": composite,
}
COLUMN_TYPES: dict[str, tuple[tuple[str, str], ...]] = {
    "token": (("parameter", "int"), ("system", "text"), ("code", "text"), ("key", "text")),
    "string": (("parameter", "int"), ("value", "text"), ("folded", "text")),
    "date": (("parameter", "int"), ("low", "timestamptz"), ("high", "timestamptz")),
    "number": (("parameter", "int"), ("low", "numeric"), ("high", "numeric")),
    "quantity": (
        ("parameter", "int"),
        ("low", "numeric"),
        ("high", "numeric"),
        ("system", "text"),
        ("code", "text"),
        ("unit", "text"),
    ),
    "ref": (
        ("parameter", "int"),
        ("target_type", "text"),
        ("target_id", "text"),
        ("target_version", "text"),
        ("url", "text"),
    ),
    "uri": (("parameter", "int"), ("value", "text")),
    "composite": (
        ("parameter", "int"),
        *((name, "text") for name in ("system", "code", "key", "text_1", "text_2", "text_3", "text_4")),
        ("low", "numeric"),
        ("high", "numeric"),
        ("starts", "timestamptz"),
        ("ends", "timestamptz"),
        ("low_3", "numeric"),
        ("high_3", "numeric"),
    ),
}
