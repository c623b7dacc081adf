"""The SQL of the work around the ledger: holds, suspensions, alerts, reviews, verification runs, and who may what."""

from __future__ import annotations

OFFICE_TABLES = (
    # Two persons release a hold: one asks, another one agrees.
    """
create table legal_hold (
  id uuid primary key, scope jsonb not null, reason text not null, placed_by text not null,
  placed_at timestamptz not null default clock_timestamp(),
  release_asked_by text, release_asked_at timestamptz, released_by text, released_at timestamptz,
  check ((released_by is null) = (released_at is null)),
  check (released_by is null or (release_asked_by is not null and released_by <> release_asked_by))
)
""",
    # The accounting of disclosures is held back for one patient, as an authority may ask (45 CFR 164.528(a)(2)).
    """
create table disclosure_suspension (
  id uuid primary key, patient_ref bytea not null, suspended_from timestamptz not null,
  suspended_until timestamptz not null, reason text not null, placed_by text not null,
  placed_at timestamptz not null default clock_timestamp(), check (suspended_until > suspended_from)
)
""",
    "create index disclosure_suspension_patient on disclosure_suspension (patient_ref)",
    """
create table alert (
  id uuid primary key, rule text not null, log_id smallint not null, seq bigint not null, severity text not null,
  score real not null default 0, actor_id text, patient_ref bytea,
  raised_at timestamptz not null default clock_timestamp(), facts jsonb not null default '{}'
)
""",
    "create index alert_raised on alert (raised_at)",
    """
create table review (
  id uuid primary key, alert_id uuid unique references alert (id), event_id uuid unique,
  kind text not null check (kind in ('alert', 'break_glass')),
  status text not null default 'open' check (status in ('open', 'closed')),
  outcome text, evidence text, reviewer text,
  opened_at timestamptz not null default clock_timestamp(), closed_at timestamptz,
  check (status = 'open' or (outcome is not null and evidence is not null and reviewer is not null
    and closed_at is not null))
)
""",
    "create index review_open on review (opened_at) where status = 'open'",
    # How far a consumer of the ledger has come, and what it has to remember: written in one transaction with its work.
    """
create table consumer_state (
  name text, log_id smallint, next_index bigint not null, state bytea not null default '', primary key (name, log_id)
)
""",
    # Who accesses most: one row per actor and hour.
    """
create table actor_hour (
  log_id smallint, hour timestamptz, actor_id text, events bigint not null, patients bigint not null,
  primary key (log_id, hour, actor_id)
)
""",
    """
create table verification_run (
  id uuid primary key, log_id smallint not null, started_at timestamptz not null, ended_at timestamptz not null,
  size bigint not null, exit_code smallint not null, findings jsonb not null default '[]'
)
""",
    "create index verification_run_ended on verification_run (log_id, ended_at)",
    # The configuration of the ledger as it was last seen; a change is an event.
    "create table configuration (name text primary key, digest text not null, since timestamptz not null)",
)

_ALL = (
    "producer_seq, legal_hold, retention_run, retention_policy, disclosure_suspension, alert, review, consumer_state,"
    " actor_hour, verification_run, configuration"
)
_EVERYBODY = "audit_report, audit_detect, audit_officer, audit_retention"

OFFICE_GRANTS = (
    f"grant usage on schema public to {_EVERYBODY}",
    f"grant select on {_ALL} to audit_reader",
    "grant select, insert, update on producer_seq, configuration to audit_writer",
    "grant select on retention_run, retention_policy to audit_writer, audit_signer",
    "grant select, insert on verification_run to audit_signer",
    # Reports read everything that holds no secret of the office; they write nothing.
    "grant select on event, malformed_payload, tree_state, checkpoint, tile to audit_report, audit_officer",
    f"grant select on {_ALL} to audit_report, audit_officer",
    # Holds, suspensions and reviews are the work of compliance officers.
    "grant insert on legal_hold, disclosure_suspension to audit_officer",
    "grant update (release_asked_by, release_asked_at, released_by, released_at) on legal_hold to audit_officer",
    "grant update (suspended_until) on disclosure_suspension to audit_officer",
    "grant update (status, outcome, evidence, reviewer, closed_at) on review to audit_officer",
    "grant select on event, tree_state, checkpoint, alert, review, actor_hour, consumer_state, producer_seq"
    " to audit_detect",
    "grant insert on alert, review to audit_detect",
    "grant insert, update on consumer_state, actor_hour to audit_detect",
    "grant update (alive_at) on producer_seq to audit_detect",
    "grant select on event, tree_state, checkpoint, tile, legal_hold, retention_run, retention_policy"
    " to audit_retention",
    "grant execute on function audit_retention_obstacles(smallint, text) to audit_retention, audit_officer",
    "grant execute on function audit_drop_month(smallint, text, uuid, text) to audit_retention",
)
