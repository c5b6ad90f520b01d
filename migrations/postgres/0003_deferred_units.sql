-- What a provider took and finishes later (responses in the background, batches), by the name it has there. Written with the
-- event of the call that began it; asked for until it is finished, then billed once by an event whose id follows from
-- `event_id`. Attribution is that of the call. Rows are kept for some weeks after they were settled.
CREATE TABLE deferred_units (
    provider        TEXT COLLATE "C" NOT NULL,
    unit            TEXT COLLATE "C" NOT NULL,                       -- responses/resp_1, batches/batch_1
    event_id        UUID             NOT NULL,
    requested_at    BIGINT           NOT NULL,
    tenant_id       TEXT COLLATE "C" NOT NULL,
    key_id          TEXT COLLATE "C",
    user_id         TEXT COLLATE "C",
    kb_id           TEXT COLLATE "C",
    model           TEXT COLLATE "C" NOT NULL,
    requested_model TEXT             NOT NULL,
    endpoint        TEXT             NOT NULL,
    prompt_tokens   BIGINT           NOT NULL,                       -- an estimate, booked if the provider never says
    due_at          BIGINT           NOT NULL,                       -- when it is to be asked for next
    asked           BIGINT           NOT NULL,                       -- how often it was
    settled_at      BIGINT,                                          -- NULL: not billed yet
    PRIMARY KEY (provider, unit)
);

CREATE INDEX deferred_units_due ON deferred_units (due_at) WHERE settled_at IS NULL;
CREATE INDEX deferred_units_settled ON deferred_units (settled_at) WHERE settled_at IS NOT NULL;
