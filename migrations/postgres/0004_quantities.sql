-- What is charged beside tokens, what tenants are billed beside what providers charge, on whose clock an event counts, and
-- rows that correct earlier ones.

-- The part of cache_write_tokens that the cache keeps for an hour or longer.
ALTER TABLE usage_events ADD COLUMN cache_write_long_tokens BIGINT NOT NULL DEFAULT 0;

-- What is charged by something else than tokens; all 0 where tokens are counted for it.
ALTER TABLE usage_events ADD COLUMN audio_ms      BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN characters    BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN images        BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN web_searches  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN file_searches BIGINT NOT NULL DEFAULT 0;

-- What the tenant is billed. NULL: the estimated cost, as it is in all rows of before; new rows have both.
ALTER TABLE usage_events ADD COLUMN billable_cost_pico_usd BIGINT;

-- How far the tenant's clock was ahead of UTC: day, month and hour of an event are those of requested_at + utc_offset_s.
ALTER TABLE usage_events ADD COLUMN utc_offset_s BIGINT NOT NULL DEFAULT 0;

-- A gateway of before that still runs would write rows without all of the above, and no sums of what was not there yet. Such
-- rows are refused, and it keeps its calls in its journal until a newer one books them. The class of the error is one that
-- it tries again after.
CREATE FUNCTION tollgate_is_too_old() RETURNS BIGINT LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'this ledger has a newer schema than this gateway: start a newer tollgate' USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;

ALTER TABLE usage_events ALTER COLUMN utc_offset_s SET DEFAULT tollgate_is_too_old();

-- A row with the outcome `correction` is no call. Its costs are to be added to those of the event that it corrects, and
-- may be below 0; `priced_before` is what `priced` was there until then. It counts in the same day and month.
ALTER TABLE usage_events ADD COLUMN corrects      UUID;
ALTER TABLE usage_events ADD COLUMN priced_before TEXT COLLATE "C";

CREATE INDEX usage_events_by_corrects ON usage_events (corrects) WHERE corrects IS NOT NULL;

ALTER TABLE usage_daily ADD COLUMN cache_write_long_tokens     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN audio_ms                    BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN characters                  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN images                      BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN web_searches                BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN file_searches               BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN billable_cost_micro_usd     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN billable_cost_rest_pico_usd BIGINT NOT NULL DEFAULT 0;

UPDATE usage_daily SET
    billable_cost_micro_usd = estimated_cost_micro_usd,
    billable_cost_rest_pico_usd = estimated_cost_rest_pico_usd;

ALTER TABLE usage_monthly ADD COLUMN cache_write_long_tokens     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN audio_ms                    BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN characters                  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN images                      BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN web_searches                BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN file_searches               BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN billable_cost_micro_usd     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly ADD COLUMN billable_cost_rest_pico_usd BIGINT NOT NULL DEFAULT 0;

UPDATE usage_monthly SET
    billable_cost_micro_usd = estimated_cost_micro_usd,
    billable_cost_rest_pico_usd = estimated_cost_rest_pico_usd;

-- The bill of a unit counts on the same clock as the call that began it.
ALTER TABLE deferred_units ADD COLUMN utc_offset_s BIGINT NOT NULL DEFAULT 0;
