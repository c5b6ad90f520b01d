-- Price books: what events were priced by.

-- Every book that was ever in force, as it was read. Never changed and never dropped: `version` is its hash, and what
-- events are priced by.
CREATE TABLE price_books (
    version  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    document TEXT             NOT NULL CHECK (octet_length(document) <= 2097152),
    base     TEXT,                                                   -- the version of the book that it lies over
    added_at BIGINT           NOT NULL,
    added_by TEXT             NOT NULL                               -- gateway, admin, cli
);

-- The book that was put in force for all gateways. NULL: each has the prices of its own configuration.
ALTER TABLE meta ADD COLUMN active_prices       TEXT;
ALTER TABLE meta ADD COLUMN active_prices_since BIGINT;
ALTER TABLE meta ADD COLUMN active_prices_by    TEXT;

-- An entry of the log may be of no tenant: prices are everybody's.
ALTER TABLE audit_log ALTER COLUMN tenant_id DROP NOT NULL;
ALTER TABLE audit_log ADD COLUMN prices_before TEXT;                 -- the version of a book, or `configured`
ALTER TABLE audit_log ADD COLUMN prices_after  TEXT;
