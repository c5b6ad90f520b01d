//! Tollgate: a reverse proxy between apps and the OpenAI and Gemini APIs that bills can be trusted to.
//!
//! # Bird's eye
//!
//! An app changes its base URL and its key. The gateway finds the tenant from the key, refuses with 402 before anything
//! goes to the provider when the tenant's plan is used up, passes everything else through byte for byte, reads from the
//! answer what the provider charged, prices it exactly, and books it once in a SQL ledger that answers the billing
//! routes.
//!
//! # The life of one request
//!
//! ```text
//! edge::listener      accept, read the head
//! edge::exchange      the line: everything below, in order, in one function
//!   edge::auth          the one credential                        -> 401
//!   providers::route    whose endpoint, and how it counts         -> 404, 405
//!   metering::identity  whose credential (snapshot, no I/O)       -> 401, 403, 503
//!   edge::session       or a websocket from here on: its turns are admitted and settled one by one, by metering::turns
//!   edge::body          the whole JSON body, under a budget       -> 413, 503
//!   edge::streamed      or a form, streamed; or, free, any body   -> 400, 413
//!   Provider::call      model, stream, edit that asks for usage   -> 400
//!   Meter::admit        price book, hold, journal: admitted       -> 402, 503   the promise: nothing fails after it
//!   Upstream::send      connect, send, wait for the head          -> 502, 504   the chat is given back
//! edge::relay         piece by piece to the client, each shown to the InFlight call on the way
//!   InFlight::settle    journal: settled, at the terminal event, before the last byte goes out; or at the end, the break,
//!                       the drain cap
//! metering::recorder  own runtime: journal to ledger in batches, events and sums in one transaction
//! metering::deferred  what a provider finishes later is billed once: by an answer that passes, or by a question of its own
//! edge::api           billing and admin routes: the same router on both listeners
//! ```
//!
//! # Layers
//!
//! Arrows point down only; a test reads the `use` lines.
//!
//! | layer | what | may use |
//! |---|---|---|
//! | [`domain`] | ids, plans, periods, tokens, money, prices, settlement table, events: pure values | itself |
//! | [`providers`] | one file per provider, its readers beside it: routes, refusals, request edit, usage; bytes in, usage out | domain |
//! | [`ports`] | traits with their contracts: counters, ledger, its rows, tenants, journal, sinks, clock | domain |
//! | [`metering`] | admission, settlement, turns, deferred bills, recorder, identity, reports, verification, copies | domain, providers, ports |
//! | [`adapters`] | counters in memory and in Redis, the journal of files, SQLite, Postgres, the system clock | domain, ports |
//! | [`edge`] | listeners, exchange, relay, billing and admin routes | domain, providers, metering |
//! | [`config`], [`telemetry`] | settings checked as a whole; log lines and metrics | domain (telemetry: ports too) |
//! | [`boot`], [`cli`], [`demo`] | composition, runtimes, signals; commands; the simulated provider | everything |
//!
//! A new provider is one file in `providers` with its fixtures and one line in [`providers::ALL`]. A new store is one file
//! in `adapters`, one arm in [`boot`], and one line in its port's conformance suite.
//!
//! # Invariants
//!
//! 1. Everything that can fail happens in `Meter::admit`. After it, a hold and room in the journal are owned, and
//!    settling is synchronous and cannot fail.
//! 2. A call settles exactly once: `InFlight::settle` consumes it, dropping it settles it as interrupted. A process that
//!    is killed leaves its admission in the journal, and the next start settles it as interrupted.
//! 3. The event is the truth: counters and sums follow from events. An event has its id from admission on, and writing it
//!    twice changes nothing. Whatever fails on the way to the ledger is tried again.
//! 4. Money is whole pico-dollars and tokens are whole tokens, both checked. No float, no rounding before the display.
//! 5. A window follows from the clock: the period is a part of the counter's name, and nothing is ever reset.
//! 6. A response is finished at its terminal event, not at the end of its connection.
//! 7. The meter looks at bytes and never changes them, with one exception: the usage event that the gateway asked for
//!    and the client did not is taken out again.
//! 8. No key, prompt or completion is in any log line, error, table or metric.
//!
//! # Glossary
//!
//! *tenant*: a customer of the operator. *plan*: what a tenant may use. *chat*: one forwarded generation request.
//! *admission*: the decision before forwarding. *hold*: what admission takes from a counter. *settlement*: the end of a
//! call, when its hold becomes what was used. *event*: one settled call in the ledger. *standing*: what of a limit is used
//! and held. *session*: a websocket; *turn*: one answer in it. *unit*: what a provider finishes later than it answers, such as
//! a batch; *bill*: the event of its usage. *ending*: how an exchange ended; *outcome*: what the event says of it.

#[cfg(feature = "gateway")]
pub mod adapters;
#[cfg(feature = "gateway")]
pub mod boot;
#[cfg(feature = "gateway")]
pub mod cli;
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod demo;
pub mod domain;
#[cfg(feature = "gateway")]
pub mod edge;
#[cfg(feature = "gateway")]
pub mod metering;
pub mod ports;
pub mod providers;
#[cfg(feature = "gateway")]
pub mod telemetry;
