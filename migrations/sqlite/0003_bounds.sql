-- Between which rows the events of a day stand, so that a page of the events of some time reads no others; and from when
-- on there are events at all.

-- Every event of the day is in these bounds; an event in them may be of another day. Without a better knowledge they are
-- those of everything.
ALTER TABLE usage_daily ADD COLUMN first_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN last_row  INTEGER NOT NULL DEFAULT 9223372036854775807;

UPDATE usage_daily SET (first_row, last_row) = (
    SELECT COALESCE(MIN(row), 0), COALESCE(MAX(row), 9223372036854775807) FROM usage_events
    WHERE tenant_id = usage_daily.tenant_id
      AND requested_at >= CAST(strftime('%s', period) AS INTEGER) * 1000000
      AND requested_at < (CAST(strftime('%s', period) AS INTEGER) + 86400) * 1000000
);

-- Events that were requested before this were dropped, and their sums kept. NULL: none was ever dropped.
ALTER TABLE meta ADD COLUMN events_from INTEGER;
