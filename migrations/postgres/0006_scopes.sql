-- What each tenant, key, user and knowledge base used in each day and month: what counters count, so that they can be built
-- again, and limits of one user be set in the middle of a month. Changed in the transaction that writes the events, and
-- dropped some time after these are. Chats, tokens in and out together, and nano-dollars (1e-9 USD), each event rounded up
-- to a whole one.
CREATE TABLE usage_scopes (
    tenant_id     TEXT COLLATE "C" NOT NULL,
    period        TEXT COLLATE "C" NOT NULL,                             -- 2026-11-24 or 2026-11
    scope         TEXT COLLATE "C" NOT NULL,                             -- tenant, key, user, kb
    subject       TEXT COLLATE "C" NOT NULL,                             -- the id of the key, user or kb; empty for the tenant
    chats         BIGINT           NOT NULL,
    tokens        BIGINT           NOT NULL,
    cost_nano_usd BIGINT           NOT NULL,
    PRIMARY KEY (tenant_id, period, scope, subject)
) WITH (fillfactor = 80);

CREATE INDEX usage_scopes_by_period ON usage_scopes (period);

INSERT INTO usage_scopes (tenant_id, period, scope, subject, chats, tokens, cost_nano_usd)
SELECT tenant_id, to_char(to_timestamp(requested_at / 1000000 + utc_offset_s) AT TIME ZONE 'UTC', form), scope, subject,
    SUM(chats)::bigint, SUM(total_tokens)::bigint, SUM(cost_nano)::bigint
FROM (
    SELECT *, CASE WHEN billable > 0 THEN billable / 1000 + CASE WHEN billable % 1000 > 0 THEN 1 ELSE 0 END ELSE 0 END AS cost_nano
    FROM (SELECT *, COALESCE(billable_cost_pico_usd, estimated_cost_pico_usd, 0) AS billable FROM usage_events) AS billed
) AS events
CROSS JOIN (VALUES ('YYYY-MM-DD'), ('YYYY-MM')) AS forms (form)
CROSS JOIN LATERAL (VALUES ('tenant', ''), ('key', key_id), ('user', user_id), ('kb', kb_id)) AS subjects (scope, subject)
WHERE outcome <> 'correction' AND subject IS NOT NULL AND (chats > 0 OR total_tokens > 0 OR cost_nano > 0)
GROUP BY 1, 2, 3, 4;
