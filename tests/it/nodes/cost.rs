//! What reports cost where a tenant has many events.
