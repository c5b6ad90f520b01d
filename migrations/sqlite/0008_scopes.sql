-- What each tenant, key, user and knowledge base used in each day and month: what counters count, so that they can be built
-- again, and limits of one user be set in the middle of a month. Changed in the transaction that writes the events, and
-- dropped some time after these are. Chats, tokens in and out together, and nano-dollars (1e-9 USD), each event rounded up
-- to a whole one.
CREATE TABLE usage_scopes (
    tenant_id     TEXT    NOT NULL,
    period        TEXT    NOT NULL,                                 -- 2026-11-24 or 2026-11
    scope         TEXT    NOT NULL,                                 -- tenant, key, user, kb
    subject       TEXT    NOT NULL,                                 -- the id of the key, user or kb; empty for the tenant
    chats         INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, period, scope, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_scopes_by_period ON usage_scopes (period);

INSERT INTO usage_scopes (tenant_id, period, scope, subject, chats, tokens, cost_nano_usd)
SELECT tenant_id, period, scope, subject, SUM(chats), SUM(tokens), SUM(cost_nano) FROM (
    SELECT tenant_id, strftime(form, requested_at / 1000000 + utc_offset_s, 'unixepoch') AS period, scope,
        CASE scope WHEN 'tenant' THEN '' WHEN 'key' THEN key_id WHEN 'user' THEN user_id ELSE kb_id END AS subject,
        chats, prompt_tokens + completion_tokens AS tokens,
        CASE WHEN billable > 0 THEN billable / 1000 + (billable % 1000 > 0) ELSE 0 END AS cost_nano
    FROM (SELECT *, COALESCE(billable_cost_pico_usd, estimated_cost_pico_usd, 0) AS billable FROM usage_events)
    CROSS JOIN (SELECT '%Y-%m-%d' AS form UNION ALL SELECT '%Y-%m')
    CROSS JOIN (SELECT 'tenant' AS scope UNION ALL SELECT 'key' UNION ALL SELECT 'user' UNION ALL SELECT 'kb')
    WHERE outcome <> 'correction'
)
WHERE subject IS NOT NULL AND (chats > 0 OR tokens > 0 OR cost_nano > 0)
GROUP BY tenant_id, period, scope, subject;
