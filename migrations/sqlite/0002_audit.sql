-- Who changed what, and what requests with an idempotency key were answered.

-- One row for each administrative change, written in its transaction and never edited. A change that changed nothing has
-- none. `row` is the insert order and the cursor of lists. A row outlives its tenant and key, so neither is a foreign key.
CREATE TABLE audit_log (
    row                    INTEGER PRIMARY KEY,
    at                     INTEGER NOT NULL,
    actor                  TEXT    NOT NULL,                        -- admin, tenant, cli
    actor_key              TEXT,                                    -- a tenant's key by its id, the admin key by its last four characters
    action                 TEXT    NOT NULL,                        -- tenant.create, tenant.change, plan.set, key.create, key.revoke
    tenant_id              TEXT    NOT NULL,
    key_id                 TEXT,
    request_id             TEXT,                                    -- the caller's x-request-id
    idempotency_key_sha256 BLOB    CHECK (length(idempotency_key_sha256) = 32),
    name_before            TEXT,                                    -- of the tenant or the key; below: what the change is about, else NULL
    name_after             TEXT,
    plan_before            TEXT,
    plan_after             TEXT,
    suspended_before       INTEGER CHECK (suspended_before IN (0, 1)),
    suspended_after        INTEGER CHECK (suspended_after IN (0, 1)),
    last4_before           TEXT,
    last4_after            TEXT,
    expires_at_before      INTEGER,
    expires_at_after       INTEGER
) STRICT;

CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id);

-- What requests with an idempotency key were answered, for 24 hours. Neither the key nor the answer can be read from it:
-- `id` and `request` are HMACs, `answer` is encrypted, under keys that are derived from the caller's credential and the
-- idempotency key, and both are nowhere here.
CREATE TABLE idempotency_records (
    id      BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    request BLOB    NOT NULL CHECK (length(request) = 32),
    answer  BLOB    NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_records_by_time ON idempotency_records (at);
