"""The SQL of bodies too large for a leaf: they go with the month of their event, unless a hold may be about them."""

from __future__ import annotations

from wardmesh_audit.schema_retention import RETENTION


def _function(name: str) -> str:
    """A function of retention as it was, to be created in another form."""
    (found,) = [statement for statement in RETENTION if f"create function {name}(" in statement]
    return found.replace("create function", "create or replace function", 1)


def _with(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, "the function of retention has another form"
    return text.replace(old, new)


# What nobody could read may be about anybody: every hold of its time keeps it, whomever the hold is about.
_OBSTACLES = _with(
    _function("audit_retention_obstacles"),
    "  if found then return next 'legal hold'; end if;\n",
    """  if not found then
    execute format('select exists (select 1 from %I e join malformed_payload p using (log_id, event_id)
      join legal_hold h on h.released_at is null and audit_held(h.scope - ''{tenant,actor,patient}''::text[],
        null, null, null, e.occurred_at))', part) into found;
  end if;
  if found then return next 'legal hold'; end if;
""",
)
_DROP_CHANGES = (
    ("  lowest bigint;\n", "  lowest bigint;\n  bodies uuid[];\n"),
    (
        "  execute format('drop table %I', part);\n",
        """  execute format('select array_agg(p.event_id) from %I e
    join malformed_payload p using (log_id, event_id)', part) into bodies;
  execute format('drop table %I', part);
""",
    ),
    ("event_id) values (gen_random_uuid()", "event_id, payloads) values (gen_random_uuid()"),
    (
        "audit_drop_month.export_sha256, evidence);\n",
        "audit_drop_month.export_sha256, evidence,\n    coalesce(cardinality(bodies), 0));\n",
    ),
    (
        "  return lowest;\n",
        """  delete from malformed_payload p where p.log_id = log and p.event_id = any(bodies);
  return lowest;
""",
    ),
)


def _drop() -> str:
    text = _function("audit_drop_month")
    for old, new in _DROP_CHANGES:
        text = _with(text, old, new)
    return text


PAYLOADS = (
    "alter table retention_run add column payloads bigint not null default 0",
    # A body may be deleted once the month of its event is gone, by whoever has the right: that is the one function.
    """
create function audit_keep_payload() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' and exists (select 1 from retention_run r where r.log_id = old.log_id
      and old.event_id >= audit_uuid_at(to_date(right(r.partition, 6), 'YYYYMM')::timestamp at time zone 'UTC')
      and old.event_id < audit_uuid_at(
        (to_date(right(r.partition, 6), 'YYYYMM') + interval '1 month')::timestamp at time zone 'UTC')) then
    return old;
  end if;
  raise exception 'append-only: % on malformed_payload is refused', tg_op using errcode = 'insufficient_privilege';
end $$
""",
    "drop trigger no_change on malformed_payload",
    "create trigger no_change before update or delete on malformed_payload"
    " for each row execute function audit_keep_payload()",
    "alter table malformed_payload enable always trigger no_change",
    _OBSTACLES,
    _drop(),
    "grant select on malformed_payload to audit_retention",
)
