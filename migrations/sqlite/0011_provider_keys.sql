-- Keys of tenants' own for providers. `sealed` is encrypted under a master key that is in no ledger, named by `master_key_id`;
-- tenant, provider, `set_at` and master key are authenticated with it, so that a row which was changed or moved opens nothing.
CREATE TABLE provider_keys (
    tenant_id     TEXT    NOT NULL REFERENCES tenants (id),
    provider      TEXT    NOT NULL,                                 -- openai, gemini
    last4         TEXT    NOT NULL,
    master_key_id TEXT    NOT NULL,
    sealed        BLOB    NOT NULL,
    set_at        INTEGER NOT NULL,                                 -- Unix microseconds
    PRIMARY KEY (tenant_id, provider)
) STRICT;

-- In whose account a unit was begun, 1 for the tenant's own: no other account knows it. And what to book should the provider
-- never say what it charged.
ALTER TABLE deferred_units ADD COLUMN own_account INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deferred_units ADD COLUMN delivered_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deferred_units ADD COLUMN output_max INTEGER;
