-- The ledger of one gateway.
--
-- Instants are Unix microseconds (UTC). Money is whole pico-dollars (1e-12 USD). A row of usage_events holds its cost as
-- one integer; a sum holds it as two, whole micro-dollars and the pico-dollars below them, so that neither a sum of
-- many rows nor of dear ones can pass 64 bits: cost = micro * 1000000 + rest, exactly. STRICT tables refuse what is no
-- integer, so a sum that would overflow is an error and never becomes a float.

-- One row: what belongs to the ledger as a whole.
CREATE TABLE meta (
    singleton      INTEGER PRIMARY KEY CHECK (singleton = 1),
    ledger_id      BLOB    NOT NULL CHECK (length(ledger_id) = 16), -- random, made once: tells ledgers apart
    revision       INTEGER NOT NULL,                                -- grows with every change of tenants, plans or keys
    admin_key_hash BLOB    CHECK (length(admin_key_hash) = 32)      -- SHA-256 of the admin key made for this ledger
) STRICT;

INSERT INTO meta (singleton, ledger_id, revision) VALUES (1, randomblob(16), 0);

CREATE TABLE tenants (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    suspended  INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every plan a tenant was ever put on; the newest row is the one it is on.
CREATE TABLE tenant_plans (
    row        INTEGER PRIMARY KEY,
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    plan       TEXT    NOT NULL,
    valid_from INTEGER NOT NULL,
    changed_by TEXT                                                 -- who asked for it, where that is known
) STRICT;

CREATE INDEX tenant_plans_by_tenant ON tenant_plans (tenant_id);

-- Keys of tenants. The key itself is nowhere.
CREATE TABLE keys (
    row          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    tenant_id    TEXT    NOT NULL REFERENCES tenants (id),
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the key
    last4        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER                                            -- to the minute
) STRICT;

CREATE INDEX keys_by_tenant ON keys (tenant_id);

-- One row for each metered call, written once. `row` is the insert order and the cursor of lists. A call is booked
-- whatever became of its tenant or key, so neither is a foreign key.
CREATE TABLE usage_events (
    row                     INTEGER PRIMARY KEY,
    id                      BLOB    NOT NULL UNIQUE CHECK (length(id) = 16), -- UUIDv7
    tenant_id               TEXT    NOT NULL,
    key_id                  TEXT,
    user_id                 TEXT,
    kb_id                   TEXT,
    provider                TEXT    NOT NULL,
    model                   TEXT    NOT NULL,                       -- as the provider answered
    requested_model         TEXT    NOT NULL,
    endpoint                TEXT    NOT NULL,
    chats                   INTEGER NOT NULL,
    prompt_tokens           INTEGER NOT NULL,                       -- every kind below is a part of this one ...
    cached_tokens           INTEGER NOT NULL,
    cache_write_tokens      INTEGER NOT NULL,
    prompt_audio_tokens     INTEGER NOT NULL,
    prompt_image_tokens     INTEGER NOT NULL,
    cached_audio_tokens     INTEGER NOT NULL,
    completion_tokens       INTEGER NOT NULL,                       -- ... or of this one
    reasoning_tokens        INTEGER NOT NULL,
    completion_audio_tokens INTEGER NOT NULL,
    completion_image_tokens INTEGER NOT NULL,
    total_tokens            INTEGER NOT NULL GENERATED ALWAYS AS (prompt_tokens + completion_tokens) VIRTUAL,
    usage_source            TEXT    NOT NULL,                       -- provider, estimate
    estimated_cost_pico_usd INTEGER,                                -- NULL: the model has no price
    priced                  TEXT    NOT NULL,                       -- priced, free, unpriced, incomplete
    price_version           TEXT    NOT NULL,
    service_tier            TEXT    NOT NULL,
    requested_at            INTEGER NOT NULL,                       -- decides the day and month it is counted in
    duration_us             INTEGER NOT NULL,
    first_byte_us           INTEGER,
    status                  INTEGER NOT NULL,                       -- what the client got; 0 for nothing
    outcome                 TEXT    NOT NULL,                       -- completed, client_left, upstream_failed, ...
    request_id              TEXT                                    -- the provider's
) STRICT;

CREATE INDEX usage_events_by_tenant ON usage_events (tenant_id);
CREATE INDEX usage_events_by_time ON usage_events (tenant_id, requested_at);

-- Sums of usage_events, changed in the transaction that writes the events.
CREATE TABLE usage_daily (
    tenant_id                    TEXT    NOT NULL,
    period                       TEXT    NOT NULL,                  -- 2026-11-24
    provider                     TEXT    NOT NULL,
    model                        TEXT    NOT NULL,
    requests                     INTEGER NOT NULL,
    chats                        INTEGER NOT NULL,
    failed_requests              INTEGER NOT NULL,
    prompt_tokens                INTEGER NOT NULL,
    cached_tokens                INTEGER NOT NULL,
    cache_write_tokens           INTEGER NOT NULL,
    prompt_audio_tokens          INTEGER NOT NULL,
    prompt_image_tokens          INTEGER NOT NULL,
    cached_audio_tokens          INTEGER NOT NULL,
    completion_tokens            INTEGER NOT NULL,
    reasoning_tokens             INTEGER NOT NULL,
    completion_audio_tokens      INTEGER NOT NULL,
    completion_image_tokens      INTEGER NOT NULL,
    estimated_cost_micro_usd     INTEGER NOT NULL,
    estimated_cost_rest_pico_usd INTEGER NOT NULL,
    unpriced_requests            INTEGER NOT NULL,
    estimated_requests           INTEGER NOT NULL,
    estimated_prompt_tokens      INTEGER NOT NULL,
    estimated_completion_tokens  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, period, provider, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_daily_by_period ON usage_daily (period);

CREATE TABLE usage_monthly (
    tenant_id                    TEXT    NOT NULL,
    period                       TEXT    NOT NULL,                  -- 2026-11
    provider                     TEXT    NOT NULL,
    model                        TEXT    NOT NULL,
    requests                     INTEGER NOT NULL,
    chats                        INTEGER NOT NULL,
    failed_requests              INTEGER NOT NULL,
    prompt_tokens                INTEGER NOT NULL,
    cached_tokens                INTEGER NOT NULL,
    cache_write_tokens           INTEGER NOT NULL,
    prompt_audio_tokens          INTEGER NOT NULL,
    prompt_image_tokens          INTEGER NOT NULL,
    cached_audio_tokens          INTEGER NOT NULL,
    completion_tokens            INTEGER NOT NULL,
    reasoning_tokens             INTEGER NOT NULL,
    completion_audio_tokens      INTEGER NOT NULL,
    completion_image_tokens      INTEGER NOT NULL,
    estimated_cost_micro_usd     INTEGER NOT NULL,
    estimated_cost_rest_pico_usd INTEGER NOT NULL,
    unpriced_requests            INTEGER NOT NULL,
    estimated_requests           INTEGER NOT NULL,
    estimated_prompt_tokens      INTEGER NOT NULL,
    estimated_completion_tokens  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, period, provider, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_monthly_by_period ON usage_monthly (period);
