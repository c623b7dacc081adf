"""The SQL of retention: the policy, the runs, and the one function that may drop a month (audit.md section 16)."""

from __future__ import annotations

RETENTION = (
    # Six years is the floor: the look-back of an accounting of disclosures.
    "create table retention_policy (log_id smallint primary key, years smallint not null check (years >= 6))",
    """
create table retention_run (
  id uuid primary key, log_id smallint not null, partition text not null, first_seq bigint not null,
  last_seq bigint not null, rows bigint not null, min_index bigint not null, policy text not null,
  export_sha256 text not null, event_id uuid not null unique, done_at timestamptz not null default clock_timestamp()
)
""",
    "create trigger no_change before update or delete on retention_run for each row execute function audit_refuse()",
    "alter table retention_run enable always trigger no_change",
    "create trigger no_truncate before truncate on retention_run execute function audit_refuse()",
    "alter table retention_run enable always trigger no_truncate",
    # Level-0 tiles of what was dropped are no cache any more: they are all that is left of those leaves.
    """
create function audit_keep_tiles() returns trigger language plpgsql as $$
begin
  if old.level = 0 and exists (select 1 from retention_run r
      where r.log_id = old.log_id and old.idx * 256 <= r.last_seq and (old.idx + 1) * 256 > r.first_seq) then
    raise exception 'append-only: this tile is all that is left of its leaves' using errcode = 'insufficient_privilege';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end $$
""",
    "create trigger no_loss before update or delete on tile for each row execute function audit_keep_tiles()",
    "alter table tile enable always trigger no_loss",
    # What a hold is about: tenant, actor, patient (a pseudonym in hex), period. All that is said must match.
    """
create function audit_held(scope jsonb, tenant text, actor text, patient bytea, occurred timestamptz)
returns boolean language sql immutable as $$
  select (scope->>'tenant' is null or scope->>'tenant' = tenant)
    and (scope->>'actor' is null or scope->>'actor' = actor)
    and (scope->>'patient' is null or scope->>'patient' = encode(patient, 'hex'))
    and (scope->>'from' is null or (scope->>'from')::timestamptz <= occurred)
    and (scope->>'until' is null or (scope->>'until')::timestamptz > occurred)
$$
""",
    # Why a month may not be dropped yet; no rows: it may. Also what `retention --dry-run` shows.
    """
create function audit_retention_obstacles(log smallint, part text) returns setof text language plpgsql stable
security definer set search_path = public, pg_temp as $$
declare
  keep interval := make_interval(years => coalesce((select years from retention_policy where log_id = log), 10));
  found boolean;
begin
  if part !~ format('^event_%s_[0-9]{6}$', log) or to_regclass(part) is null then
    return next 'no such month';
    return;
  end if;
  execute format('select exists (select 1 from %I where occurred_at > now() - $1 or recorded_at > now() - $1)', part)
    into found using keep;
  -- An empty month has no rows that say so, and the months ahead are empty.
  if found or to_date(right(part, 6), 'YYYYMM') + interval '1 month' > now() - keep then
    return next 'not expired';
  end if;
  execute format('select exists (select 1 from %I e join legal_hold h on h.released_at is null
    and audit_held(h.scope, e.tenant, e.actor_id, e.patient_ref, e.occurred_at))', part) into found;
  if found then return next 'legal hold'; end if;
  execute format('select exists (select 1 from %I e left join tile t
    on t.log_id = e.log_id and t.level = 0 and t.idx = e.seq / 256
    where t.data is null or substr(t.data, (e.seq %% 256)::int * 32 + 1, 32) <> e.leaf_hash)', part) into found;
  if found then return next 'tiles missing'; end if;
end $$
""",
    # Drops one month. The retention event must be in the ledger already and name the month: no drop without its event.
    """
create function audit_drop_month(log smallint, part text, evidence uuid, export_sha256 text) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  obstacle text;
  first_index bigint;
  last_index bigint;
  events bigint;
  lowest bigint;
  keep smallint := coalesce((select years from retention_policy where log_id = log), 10);
begin
  -- Writers wait here: a late event must not slip in between the look and the drop.
  perform 1 from tree_state where log_id = log for update;
  lock table legal_hold in share mode;
  select audit_retention_obstacles(log, part) into obstacle limit 1;
  if obstacle is not null then
    raise exception 'retention: %', obstacle using errcode = 'object_not_in_prerequisite_state';
  end if;
  if not exists (select 1 from public.event e where e.log_id = log and e.event_id = evidence
      and e.event_type = 'retention' and e.phase = 'intent'
      and position(convert_to('"partition":"' || part || '"', 'UTF8') in e.leaf) > 0) then
    raise exception 'retention: the event is not in the ledger' using errcode = 'object_not_in_prerequisite_state';
  end if;
  if export_sha256 !~ '^[0-9a-f]{64}$' then
    raise exception 'retention: no export' using errcode = 'object_not_in_prerequisite_state';
  end if;
  execute format('select min(seq), max(seq), count(*) from %I', part) into first_index, last_index, events;
  lowest := greatest(coalesce(last_index + 1, 0),
    coalesce((select max(min_index) from retention_run where log_id = log), 0));
  execute format('drop table %I', part);
  insert into retention_run (id, log_id, partition, first_seq, last_seq, rows, min_index, policy, export_sha256,
    event_id) values (gen_random_uuid(), log, part, coalesce(first_index, 0), coalesce(last_index, -1), events,
    lowest, keep || ' years', audit_drop_month.export_sha256, evidence);
  return lowest;
end $$
""",
    "revoke all on function audit_retention_obstacles(smallint, text) from public",
    "revoke all on function audit_drop_month(smallint, text, uuid, text) from public",
)
