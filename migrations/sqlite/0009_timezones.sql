-- Whose clock the days and months of a tenant are of: an IANA name.

ALTER TABLE tenants ADD COLUMN timezone TEXT NOT NULL DEFAULT 'UTC';
ALTER TABLE audit_log ADD COLUMN timezone_before TEXT;
ALTER TABLE audit_log ADD COLUMN timezone_after TEXT;
