-- The audit log is append-only, whoever asks; and it tells which events were priced again or dropped.

ALTER TABLE audit_log ADD COLUMN events_before TEXT;
ALTER TABLE audit_log ADD COLUMN events_after  TEXT;

-- No entry is changed or dropped. But a copy that is not finished may put right what it wrote itself; while there is one,
-- nothing else opens the ledger.
CREATE TRIGGER audit_log_never_changes BEFORE UPDATE ON audit_log
WHEN NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'unfinished_copy')
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_log_never_shrinks BEFORE DELETE ON audit_log
WHEN NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'unfinished_copy')
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
