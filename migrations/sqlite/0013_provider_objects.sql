-- Whose the objects are that providers keep for all tenants in one account: responses, files, batches, caches. Who was
-- noted first stays. `passes`: the provider drops it by itself, so a note of it need not be kept for ever.
CREATE TABLE provider_objects (
    provider  TEXT    NOT NULL,
    name      TEXT    NOT NULL CHECK (length(name) <= 200),
    tenant_id TEXT    NOT NULL,
    passes    INTEGER NOT NULL CHECK (passes IN (0, 1)),
    noted_at  INTEGER NOT NULL,
    PRIMARY KEY (provider, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX provider_objects_that_pass ON provider_objects (noted_at) WHERE passes;
