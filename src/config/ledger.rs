//! Where the ledger is: a file of SQLite, or a database of Postgres.
//!
//! May use: `sqlx` for URLs of Postgres.

use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

/// The ledger that the configuration names. Its `Debug` form shows no password.
#[derive(Debug, Clone)]
pub enum Ledger {
    /// One file, for one gateway.
    Sqlite(PathBuf),
    /// One database, for any number of gateways: its URL.
    Postgres(SecretString),
}

/// What a URL of Postgres may have behind its question mark. Not its password: it would be shown.
const PARAMETERS: [&str; 10] =
    ["application_name", "dbname", "host", "hostaddr", "port", "sslcert", "sslkey", "sslmode", "sslrootcert", "user"];

/// The ledger of that URL. The error is the end of a sentence, and shows nothing of the URL.
///
/// # Errors
/// With what is wrong, and how it is written.
pub fn parse(url: &str) -> Result<Ledger, String> {
    match url.split_once("://") {
        Some(("sqlite", path)) => file(path).map(Ledger::Sqlite),
        Some(("postgres" | "postgresql", _)) => database(url).map(Ledger::Postgres),
        _ => Err("is no ledger: write sqlite://relative/path.db, sqlite:///absolute/path.db or \
                  postgres://user:password@host:5432/database"
            .to_owned()),
    }
}

fn file(path: &str) -> Result<PathBuf, String> {
    if path.contains('?') || path.contains('#') {
        return Err("has options after its path: write the path alone".into());
    }
    if path.is_empty() || path.ends_with('/') || path == ":memory:" {
        return Err("names no file: write sqlite://relative/path.db or sqlite:///absolute/path.db".into());
    }
    Ok(PathBuf::from(path))
}

fn database(url: &str) -> Result<SecretString, String> {
    if url.contains('#') {
        // A password is often the one to have it; everything behind it would be silently left out.
        return Err("has a '#': write %23 instead".into());
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let name = |parameter: &str| parameter.split_once('=').map_or(parameter, |(name, _)| name).to_owned();
    let unknown = parameters.split('&').map(name).find(|name| !name.is_empty() && !PARAMETERS.contains(&&**name));
    if let Some(unknown) = unknown {
        // A name is shown only if it can be nothing else.
        let is_word = unknown.len() <= 20 && unknown.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let shown = if is_word { format!(" {unknown}") } else { String::new() };
        return Err(format!("has a parameter{shown} that is not known: the known ones are {}", PARAMETERS.join(", ")));
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        "is no URL of Postgres: write postgres://user:password@host:5432/database, with ?sslmode=verify-full for TLS, and \
         characters such as @ and / of a password as %40 and %2F"
    })?;
    match options.get_database() {
        None => Err("names no database: write postgres://user:password@host:5432/database".into()),
        // As when the password has a slash: then host, port and database are none of these.
        Some(database) if database.contains('@') => Err("has a '/' or '@' in its password: write %2F and %40".into()),
        Some(_) => Ok(url.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_a_database() {
        for url in [
            "postgres://u:p%23@h/d",
            "postgresql://h:1/d?sslmode=verify-full&sslrootcert=/c.pem",
            "postgres:///d?host=/s",
        ] {
            assert!(matches!(parse(url), Ok(Ledger::Postgres(_))), "{url}");
        }
        for url in ["sqlite://a.db", "sqlite:///a/b.db"] {
            assert!(matches!(parse(url), Ok(Ledger::Sqlite(_))), "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_and_nothing_secret_of_it_told() {
        for (url, words) in [
            ("mysql://u:hunter2@h/d", "postgres://user"),
            ("sqlite://a?mode=hunter2", "path alone"),
            ("postgres://u:hunter2#@h/d", "%23"),
            ("postgres://u:hunter2@h", "names no database"),
            ("postgres://u:hunter2@h:port/d", "no URL of Postgres"),
            ("postgres://u:hunter2@h/d?sslmode=hunter2", "no URL of Postgres"),
            ("postgres://u:1/hunter2@h/d", "%2F"),
            ("postgres://u@h/d?sslmod=hunter2", "parameter sslmod that"),
            ("postgres://u@h/d?Hunter2", "parameter that"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(words) && !error.to_lowercase().contains("hunter2"), "{url}: {error}");
        }
    }
}
