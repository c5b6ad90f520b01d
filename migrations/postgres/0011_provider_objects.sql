-- Whose the objects are that providers keep for all tenants in one account: responses, files, batches, caches. Who was
-- noted first stays. `passes`: the provider drops it by itself, so a note of it need not be kept for ever.
CREATE TABLE provider_objects (
    provider  TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL CHECK (length(name) <= 200),
    tenant_id TEXT COLLATE "C" NOT NULL,
    passes    BOOLEAN          NOT NULL,
    noted_at  BIGINT           NOT NULL,
    PRIMARY KEY (provider, name)
);

CREATE INDEX provider_objects_that_pass ON provider_objects (noted_at) WHERE passes;
