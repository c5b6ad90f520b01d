//! Log lines on stderr, filtered as `RUST_LOG` says, for people or machines; lines of libraries that use `log` too.
//!
//! May use: nothing of ours but the form of lines. The filter comes in as a value.

use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};

use tracing::{Level, Metadata};
use tracing_log::LogTracer;
use tracing_log::log::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, filter, fmt, reload};

use super::lines::{JsonLines, TextFields};

/// Which lines are written: a filter that is one.
pub struct Filter(EnvFilter);

impl Filter {
    /// `text` is in the syntax of `RUST_LOG`.
    ///
    /// # Errors
    /// One line that names the fix.
    pub fn parse(text: &str) -> Result<Self, String> {
        EnvFilter::try_new(text).map(Self).map_err(|_| {
            format!("log.filter {text:?} is no filter: write a level or target=level, such as info,tollgate=debug")
        })
    }
}

/// The filter of the running log, to be changed while it runs.
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// From now on lines are written by this filter.
    pub fn set_filter(&self, filter: Filter) {
        if let Err(error) = self.0.reload(filter.0) {
            tracing::warn!(%error, "The filter of log lines could not be changed.");
        }
    }
}

/// Starts logging for the process, of panics too. `json` writes one object a line.
///
/// # Errors
/// One line that names the fix: a filter that is none, or logging that runs already.
pub fn start(filter: &str, json: bool) -> Result<Log, String> {
    let (filter, handle) = reload::Layer::new(Filter::parse(filter)?.0);
    let guard = filter::filter_fn(may_be_shown);
    let started = if json {
        let lines = fmt::layer()
            .with_writer(JsonLines(std::io::stderr))
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        let lines = lines.with_filter(guard).with_filter(filter);
        tracing::subscriber::set_global_default(Registry::default().with(lines))
    } else {
        let lines = fmt::layer().fmt_fields(TextFields).with_writer(std::io::stderr);
        let lines = lines.with_ansi(std::io::stderr().is_terminal());
        let lines = lines.with_filter(guard).with_filter(filter);
        tracing::subscriber::set_global_default(Registry::default().with(lines))
    };
    started.map_err(|_| "logging is started already: start it once".to_owned())?;
    LogTracer::init_with_filter(LevelFilter::Info)
        .map_err(|_| "another logger is installed: start logging once".to_owned())?;
    panic::set_hook(Box::new(panicked));
    Ok(Log(handle))
}

/// A panic as a log line. Its text is left out where it was put together, as it may quote what a client sent: the place in the
/// code says which panic it was.
fn panicked(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let why = panic.payload().downcast_ref::<&'static str>().copied();
    tracing::error!(at, why, "A thread panicked; what it did for a caller has ended, all else goes on.");
}

/// Where the driver of Postgres puts what a server says beside its answers.
const NOTICES: &str = "sqlx::postgres::notice";

/// Libraries print what they handle below `info`: heads with credentials, URLs with keys. However the filter is set,
/// such lines are not written; our own never hold any. Notices of Postgres are not either: they say that a statement had
/// nothing to do, such as making a table that is there. Its warnings are no notices.
fn may_be_shown(line: &Metadata<'_>) -> bool {
    let lowest = if line.target() == NOTICES { Level::WARN } else { Level::INFO };
    *line.level() <= lowest || line.target() == "tollgate" || line.target().starts_with("tollgate::")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        assert!(Filter::parse("info,tollgate=debug").is_ok());
        let error = Filter::parse("tollgate=loud").err().unwrap();
        assert!(error.contains("tollgate=loud") && error.contains("such as info"), "{error}");
    }

    /// Text that a log wrote.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of the lines that `say` says.
    fn written(filter: &str, say: impl FnOnce(&Log)) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let (filter, handle) = reload::Layer::new(Filter::parse(filter).unwrap().0);
        let lines = lines.with_filter(filter::filter_fn(may_be_shown)).with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(lines), || say(&Log(handle)));
        let text = kept.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn debug_lines_of_libraries_are_never_shown_and_a_new_filter_counts_at_once() {
        let text = written("trace", |log| {
            tracing::debug!(target: "pingora_core::h1", "secret head");
            tracing::debug!(target: "tollgatekeeper", "secret other");
            tracing::info!(target: "pingora_core", "library news");
            tracing::debug!(target: "tollgate::edge", "own detail");
            log.set_filter(Filter::parse("warn").unwrap());
            tracing::info!(target: "tollgate::edge", "no longer wanted");
        });
        assert!(text.contains("library news") && text.contains("own detail"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.contains("no longer wanted"), "{text}");
    }

    #[test]
    fn a_panic_is_a_line_without_what_a_client_sent() {
        let text = written("info", |_| {
            let own = panic::take_hook();
            panic::set_hook(Box::new(panicked));
            let results = [
                panic::catch_unwind(|| panic!("of our own words")),
                panic::catch_unwind(|| panic!("{}", "a prompt\nline")),
            ];
            panic::set_hook(own);
            assert!(results.iter().all(Result::is_err));
        });
        assert_eq!(
            text.lines().filter(|line| line.contains("A thread panicked") && line.contains("logging.rs:")).count(),
            2
        );
        assert!(text.contains("of our own words") && !text.contains("a prompt"), "{text}");
    }

    #[test]
    fn warnings_of_postgres_are_shown_and_its_notices_are_not() {
        let say = |_: &Log| {
            tracing::info!(target: "sqlx::postgres::notice", "relation exists, skipping");
            tracing::warn!(target: "sqlx::postgres::notice", "collation version mismatch");
            tracing::info!(target: "sqlx::postgres", "connection news");
        };
        let text = written("info", say);
        assert!(text.contains("collation version mismatch") && text.contains("connection news"), "{text}");
        assert!(!text.contains("skipping"), "{text}");
        assert_eq!(written("error", say), "");
    }
}
