"""The SQL of the producers' dense counters: what is stored of each epoch, kept by the writer in its transaction."""

from __future__ import annotations

# A producer counts its events from 0. `seen` events are stored and the highest number is `last_seq`: they are complete
# when seen = last_seq + 1. `behind_since` says since when they are not, `alive_at` when the producer last answered.
PRODUCER_TABLES = (
    """
create table producer_seq (
  log_id smallint, producer text, epoch uuid, last_seq bigint not null, seen bigint not null,
  closed boolean not null default false, first_index bigint not null, last_index bigint not null,
  first_at timestamptz not null default clock_timestamp(), last_at timestamptz not null default clock_timestamp(),
  behind_since timestamptz, alive_at timestamptz,
  primary key (log_id, producer, epoch)
) with (fillfactor = 50)
""",
    """
insert into producer_seq (log_id, producer, epoch, last_seq, seen, closed, first_index, last_index, first_at, last_at,
  behind_since)
select log_id, producer, epoch, max(producer_seq), count(*),
  coalesce(bool_or(event_type = 'audit_status' and position('"reason":"stop"'::bytea in leaf) > 0), false),
  min(seq), max(seq), min(recorded_at), max(recorded_at),
  case when count(*) <> max(producer_seq) + 1 then max(recorded_at) end
from event where epoch is not null and producer is not null and producer_seq is not null
group by log_id, producer, epoch
""",
)
