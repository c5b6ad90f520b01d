-- Price books: what events were priced by.

-- Every book that was ever in force, as it was read. Never changed and never dropped: `version` is its hash, and what
-- events are priced by.
CREATE TABLE price_books (
    version  TEXT    NOT NULL PRIMARY KEY,
    document TEXT    NOT NULL CHECK (length(document) <= 2097152),
    base     TEXT,                                                  -- the version of the book that it lies over
    added_at INTEGER NOT NULL,
    added_by TEXT    NOT NULL                                       -- gateway, admin, cli
) STRICT;

-- The book that was put in force for all gateways. NULL: each has the prices of its own configuration.
ALTER TABLE meta ADD COLUMN active_prices       TEXT;
ALTER TABLE meta ADD COLUMN active_prices_since INTEGER;
ALTER TABLE meta ADD COLUMN active_prices_by    TEXT;

-- An entry of the log may be of no tenant: prices are everybody's.
CREATE TABLE audit_log_of_all (
    row                    INTEGER PRIMARY KEY,
    at                     INTEGER NOT NULL,
    actor                  TEXT    NOT NULL,                        -- admin, tenant, cli
    actor_key              TEXT,                                    -- a tenant's key by its id, the admin key by its last four characters
    action                 TEXT    NOT NULL,                        -- tenant.create, tenant.change, plan.set, key.create, key.revoke, prices.set
    tenant_id              TEXT,
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
    expires_at_after       INTEGER,
    allowed_models_before  TEXT,
    allowed_models_after   TEXT,
    prices_before          TEXT,                                    -- the version of a book, or `configured`
    prices_after           TEXT
) STRICT;

INSERT INTO audit_log_of_all SELECT *, NULL, NULL FROM audit_log;
DROP TABLE audit_log;
ALTER TABLE audit_log_of_all RENAME TO audit_log;
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id);
