-- Which models a key may use: patterns of names with commas between them. NULL: those that its tenant's plan allows.
ALTER TABLE keys ADD COLUMN allowed_models TEXT;

ALTER TABLE audit_log ADD COLUMN allowed_models_before TEXT;
ALTER TABLE audit_log ADD COLUMN allowed_models_after  TEXT;
