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

-- An entry that takes the row of another would drop that one, and no trigger for DELETE runs then.
CREATE TRIGGER audit_log_never_repeats BEFORE INSERT ON audit_log
WHEN EXISTS (SELECT 1 FROM audit_log WHERE row = NEW.row)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- Above, an entry that has no row yet looks as if its row were -1: there is none.
CREATE TRIGGER audit_log_only_grows AFTER INSERT ON audit_log
WHEN NEW.row < 1
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
