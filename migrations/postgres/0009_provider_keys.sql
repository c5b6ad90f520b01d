-- Keys of tenants' own for providers. `sealed` is encrypted under a master key that is in no ledger, named by `master_key_id`;
-- tenant, provider, `set_at` and master key are authenticated with it, so that a row which was changed or moved opens nothing.
CREATE TABLE provider_keys (
    tenant_id     TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    provider      TEXT COLLATE "C" NOT NULL,                             -- openai, gemini
    last4         TEXT             NOT NULL,
    master_key_id TEXT COLLATE "C" NOT NULL,
    sealed        BYTEA            NOT NULL,
    set_at        BIGINT           NOT NULL,                             -- Unix microseconds
    PRIMARY KEY (tenant_id, provider)
);
