-- Thresholds of limits that were crossed, once for each percent, limit and window: written in the transaction whose events
-- crossed them, and read in the order of `row` by whoever tells of them. Dropped some time after the events of their window.
CREATE TABLE threshold_crossings (
    row         INTEGER PRIMARY KEY,
    tenant_id   TEXT    NOT NULL,
    scope       TEXT    NOT NULL,                                   -- tenant, key, user, kb
    subject     TEXT    NOT NULL,                                   -- the id of the key, user or kb; empty for the tenant
    metric      TEXT    NOT NULL,                                   -- chats, tokens, cost_usd
    period      TEXT    NOT NULL,                                   -- 2026-11-24 or 2026-11
    percent     INTEGER NOT NULL,
    limit_units INTEGER NOT NULL,                                   -- with its top-up, without grace; of cost nano-dollars
    used_units  INTEGER NOT NULL,                                   -- after the batch that crossed it
    plan        TEXT    NOT NULL,
    event_id    BLOB    NOT NULL CHECK (length(event_id) = 16),     -- the event that crossed it
    at          INTEGER NOT NULL,                                   -- when that call was over, Unix microseconds
    UNIQUE (tenant_id, scope, subject, period, metric, percent)
) STRICT;

CREATE INDEX threshold_crossings_by_tenant ON threshold_crossings (tenant_id);
CREATE INDEX threshold_crossings_by_period ON threshold_crossings (period);
