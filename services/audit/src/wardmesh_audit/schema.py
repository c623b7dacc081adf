"""The SQL of the ledger: tables, month partitions, append-only triggers and rights (audit.md sections 7 and 8)."""

from __future__ import annotations

LEDGER_ROLES = (
    "audit_owner",
    "audit_migrate",
    "audit_writer",
    "audit_signer",
    "audit_reader",
    "audit_report",
    "audit_retention",
    "audit_detect",  # detection: alerts, reviews to do, its own state
    "audit_officer",  # the work of compliance: holds, suspensions, reviews
)
KEY_ROLES = ("key_owner", "key_user", "key_shredder")
NO_LOGIN = frozenset({"audit_owner", "key_owner"})

# Tables that nobody may change; the triggers fire even for sessions with session_replication_role = replica.
GUARDED = ("event", "checkpoint", "malformed_payload")

TABLES = (
    """
create table event (
  log_id smallint not null, seq bigint not null, event_id uuid not null,
  occurred_at timestamptz not null, recorded_at timestamptz not null default clock_timestamp(),
  tenant text, event_type text not null, phase text, action text, outcome text,
  actor_id text, patient_ref bytea, resource_type text, purpose text,
  break_glass boolean not null default false, request_id text, trace_id text,
  producer text, epoch uuid, producer_seq bigint, stream_seq bigint,
  leaf bytea not null check (octet_length(leaf) <= 60000),
  leaf_hash bytea not null check (octet_length(leaf_hash) = 32),
  primary key (log_id, event_id)
) partition by list (log_id)
""",
    "create table event_0 partition of event for values in (0) partition by range (event_id)",
    "create index event_patient on event (patient_ref, occurred_at)",
    "create index event_actor on event (actor_id, occurred_at)",
    """
create table tree_state (
  log_id smallint primary key, size bigint not null, root bytea not null, frontier bytea not null
)
""",
    "insert into tree_state values (0, 0, sha256(''), '')",
    """
create table checkpoint (
  log_id smallint, size bigint, root bytea not null, note text not null, cosigs text,
  signed_at timestamptz not null default clock_timestamp(), primary key (log_id, size)
)
""",
    """
create table tile (
  log_id smallint, level smallint, idx bigint, data bytea not null, primary key (log_id, level, idx)
)
""",
    """
create table malformed_payload (
  log_id smallint, event_id uuid, raw bytea not null, primary key (log_id, event_id)
)
""",
)

FUNCTIONS = (
    """
create function audit_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'append-only: % on % is refused', tg_op, tg_table_name using errcode = 'insufficient_privilege';
end $$
""",
    """
create function audit_refuse_shrink() returns trigger language plpgsql as $$
begin
  if tg_op <> 'UPDATE' then
    raise exception 'append-only: % on % is refused', tg_op, tg_table_name using errcode = 'insufficient_privilege';
  end if;
  if new.size < old.size or new.log_id <> old.log_id then
    raise exception 'append-only: the tree must not shrink' using errcode = 'insufficient_privilege';
  end if;
  return new;
end $$
""",
    # The smallest UUIDv7 of an instant: its milliseconds in the first 48 bits.
    """
create function audit_uuid_at(instant timestamptz) returns uuid language sql immutable as $$
  select (lpad(to_hex((extract(epoch from instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$
""",
    # Makes the month partitions around now where they are missing. No arguments: a caller can ask for nothing else.
    """
create function audit_make_partitions() returns integer language plpgsql security definer
set search_path = public, pg_temp as $$
declare
  made integer := 0;
  month timestamptz;
  name text;
begin
  for i in -1 .. 3 loop
    month := date_trunc('month', now() at time zone 'UTC') at time zone 'UTC' + make_interval(months => i);
    name := 'event_0_' || to_char(month at time zone 'UTC', 'YYYYMM');
    if to_regclass(name) is null then
      perform pg_advisory_xact_lock(hashtext('audit_make_partitions'));
      continue when to_regclass(name) is not null;
      execute format('create table %I partition of event_0 for values from (%L) to (%L)',
        name, audit_uuid_at(month), audit_uuid_at(month + interval '1 month'));
      perform audit_guard_partition(name);
      made := made + 1;
    end if;
  end loop;
  return made;
end $$
""",
    """
create function audit_guard_partition(name text) returns void language plpgsql as $$
begin
  execute format('create unique index on %I (log_id, seq)', name);
  execute format('create trigger no_truncate before truncate on %I execute function audit_refuse()', name);
  execute format('alter table %I enable always trigger no_truncate', name);
end $$
""",
    "revoke all on function audit_guard_partition(text) from public",
    "revoke all on function audit_make_partitions() from public",
)


def guards() -> list[str]:
    """Triggers on the guarded tables, enabled always; row triggers reach the partitions by themselves."""
    statements: list[str] = []
    for table in GUARDED:
        statements += [
            f"create trigger no_change before update or delete on {table} for each row execute function audit_refuse()",
            f"alter table {table} enable always trigger no_change",
            f"create trigger no_truncate before truncate on {table} execute function audit_refuse()",
            f"alter table {table} enable always trigger no_truncate",
        ]
    return [
        *statements,
        "create trigger no_shrink before update or delete on tree_state"
        " for each row execute function audit_refuse_shrink()",
        "alter table tree_state enable always trigger no_shrink",
        "create trigger no_truncate before truncate on tree_state execute function audit_refuse()",
        "alter table tree_state enable always trigger no_truncate",
        "create table event_0_default partition of event_0 default",
        "select audit_guard_partition('event_0_default')",
        "select audit_make_partitions()",
        "create trigger no_truncate before truncate on event_0 execute function audit_refuse()",
        "alter table event_0 enable always trigger no_truncate",
    ]


GRANTS = (
    "revoke all on schema public from public",
    "grant usage on schema public to audit_writer, audit_signer, audit_reader, audit_report",
    "grant select, insert on event, malformed_payload to audit_writer",
    "grant select, update on tree_state to audit_writer",
    "grant execute on function audit_make_partitions() to audit_writer",
    "grant select on event, tree_state to audit_signer",
    "grant select, insert on checkpoint, tile to audit_signer",
    "grant select on event, malformed_payload, tree_state, checkpoint, tile to audit_reader",
)

KEY_TABLES = (
    """
create table subject_key (
  handle bytea primary key, kid bytea unique not null, pseudonym bytea unique not null,
  wrapped bytea, created_at timestamptz not null default clock_timestamp(), destroyed_at timestamptz
)
""",
    "revoke all on schema public from public",
    "grant usage on schema public to key_user, key_shredder",
    "grant select, insert on subject_key to key_user",
    "grant select, update (wrapped, handle, destroyed_at) on subject_key to key_shredder",
)
