"""The SQL of more than one log: a list partition with its months per log, made by the owner, kept ahead by writers."""

from __future__ import annotations

LOG_FUNCTIONS = (
    # The tables of one month of one log; nothing happens when they are there. Only the owner may call it.
    """
create function audit_make_month(log smallint, month timestamptz) returns boolean language plpgsql as $$
declare
  start timestamptz := date_trunc('month', month at time zone 'UTC') at time zone 'UTC';
  name text := format('event_%s_%s', log, to_char(start at time zone 'UTC', 'YYYYMM'));
begin
  if to_regclass(name) is not null then
    return false;
  end if;
  perform pg_advisory_xact_lock(hashtext('audit_make_partitions'));
  if to_regclass(name) is not null then
    return false;
  end if;
  execute format('create table %I partition of %I for values from (%L) to (%L)',
    name, format('event_%s', log), audit_uuid_at(start), audit_uuid_at(start + interval '1 month'));
  perform audit_guard_partition(name);
  return true;
end $$
""",
    # The month partitions around now of every log, where they are missing. No arguments: nothing else can be asked for.
    """
create or replace function audit_make_partitions() returns integer language plpgsql security definer
set search_path = public, pg_temp as $$
declare
  made integer := 0;
  log smallint;
begin
  for log in select log_id from tree_state order by log_id loop
    for i in -1 .. 3 loop
      if audit_make_month(log, now() + make_interval(months => i)) then
        made := made + 1;
      end if;
    end loop;
  end loop;
  return made;
end $$
""",
    """
create function audit_add_log(log smallint) returns boolean language plpgsql as $$
declare
  name text := format('event_%s', log);
begin
  if exists (select 1 from tree_state where log_id = log) then
    return false;
  end if;
  execute format('create table %I partition of event for values in (%s) partition by range (event_id)', name, log);
  execute format('create table %I partition of %I default', name || '_default', name);
  perform audit_guard_partition(name || '_default');
  execute format('create trigger no_truncate before truncate on %I execute function audit_refuse()', name);
  execute format('alter table %I enable always trigger no_truncate', name);
  insert into tree_state values (log, 0, sha256(''), '');
  perform audit_make_partitions();
  return true;
end $$
""",
    "revoke all on function audit_make_month(smallint, timestamptz) from public",
    "revoke all on function audit_add_log(smallint) from public",
    # Intents, and what ends them: few rows, so that finding an intent without an end needs no scan.
    "create index event_intent on event (log_id, seq) where phase = 'intent' and outcome is distinct from 'withheld'",
    """
create index event_ending on event (request_id) where (phase = 'outcome' or outcome = 'withheld')
  and (break_glass or event_type not in ('access', 'search', 'login', 'audit_status', 'audit_read', 'alert'))
""",
)
