-- The audit log is append-only, whoever asks; and it tells which events were priced again or dropped.

ALTER TABLE audit_log ADD COLUMN events_before TEXT;
ALTER TABLE audit_log ADD COLUMN events_after  TEXT;

-- No entry is changed or dropped. But a copy that is not finished may put right what it wrote itself; while there is one,
-- nothing else opens the ledger. Its mark lies beside the log and belongs to whom the log belongs: one that somebody else
-- made, there or among the temporary tables, is none. What is named here is looked for among the system's own alone.
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_class AS mark JOIN pg_class AS log ON (mark.relnamespace, mark.relowner) = (log.relnamespace, log.relowner)
        WHERE log.oid = TG_RELID AND mark.relname = 'unfinished_copy'
    ) THEN
        RAISE EXCEPTION 'the audit log is append-only';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER audit_log_never_changes BEFORE UPDATE OR DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();

CREATE TRIGGER audit_log_never_shrinks BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
