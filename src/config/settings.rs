//! The raw half of configuration: what flags, environment and file say, as text by key, each value with its source.
//!
//! May use: [`super::keys`], [`super::stamps`], names of [`super::plans`] and [`super::budgets`]. Nothing is checked here but that a key exists
//! and has one value: what a value means is the business of [`super::Config`]. The file is walked as a parsed TOML table
//! rather than deserialised, because serde stops at the first wrong key and knows no line numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::budgets::{self, THRESHOLDS};
use super::keys::{self, Key};
use super::plans::{ALLOWED_MODELS, PRICE_PERCENT};
use super::stamps::Stamped;

/// A file above this size is not a configuration (and `/dev/zero` is none either).
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Environment variables, so that tests can pass a map and the process is read in one place.
pub trait Environment {
    /// The variable's value; an empty one counts as not set, as compose files write `KEY=`.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The built-in default.
    Default,
    /// A line of the configuration file.
    File {
        /// The file's path as given.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One flag of the command line that sets a key.
#[derive(Clone)]
pub struct Flag {
    /// As it was typed, such as `--listen` or `--set listen.proxy`.
    pub name: String,
    /// The key it sets.
    pub key: String,
    /// The value.
    pub value: String,
}

/// One raw value.
#[derive(Clone)]
pub(super) struct Raw {
    /// The value as text.
    pub text: String,
    /// Where it comes from.
    pub source: Source,
}

/// All raw values by key, and what was wrong on the way.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<String, Raw>,
    /// `(plan, key)` to value, only of the file.
    pub plans: BTreeMap<(String, String), Raw>,
    /// The files that were read, each as it was before it was.
    pub files: Vec<Stamped>,
    /// One line for each mistake.
    pub errors: Vec<String>,
    /// One line for each thing that is probably a mistake.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Collects the file, then the environment over it, then the flags over both.
    pub fn collect(flags: &[Flag], environment: &dyn Environment, file: Option<&Path>) -> Self {
        let mut settings = Self::default();
        if let Some(path) = file {
            settings.read_file(path);
        }
        settings.read_environment(environment);
        settings.read_flags(flags);
        settings
    }

    /// The value of a key, if one was given.
    pub fn get(&self, key: &str) -> Option<&Raw> {
        self.values.get(key)
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        self.files.push(Stamped::now(path));
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(reason) => {
                self.errors.push(format!("{shown}: {reason}: check the path after --config or in TOLLGATE_CONFIG"));
                return;
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            self.errors.push(format!("{shown}:{line}: no valid TOML: {}", error.message()));
        }
        self.walk(&shown, &text, "", table.get_ref());
    }

    fn walk(&mut self, path: &str, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let name = name.get_ref();
            let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            let source = Source::File { path: path.to_owned(), line };
            match value.get_ref() {
                // A section is known when some key lies below it; the plan's name is the operator's.
                DeValue::Table(inner) if is_section(&key) => self.walk(path, text, &key, inner),
                DeValue::String(value) => self.put_from_file(&key, value.to_string(), source),
                DeValue::Integer(value) if value.radix() == 10 => {
                    self.put_from_file(&key, value.as_str().replace('_', ""), source);
                }
                DeValue::Boolean(value) => self.put_from_file(&key, value.to_string(), source),
                // It is kept as it is written: no float is made of it.
                // As it was written: money is no float.
                DeValue::Float(value) if takes_decimals(&key) => {
                    self.put_from_file(&key, value.as_str().replace('_', ""), source);
                }
                // This may be a list: it becomes one text, as a single pattern is one.
                DeValue::Array(values) if key.starts_with("plans.") && key.ends_with(ALLOWED_MODELS) => {
                    match texts(values) {
                        Some(text) => self.put_from_file(&key, text, source),
                        None => self.errors.push(format!("{source}: {key} is no list of texts: write each in quotes")),
                    }
                }
                DeValue::Array(values) if key.starts_with("plans.") && key.ends_with(THRESHOLDS) => {
                    match numbers(values) {
                        Some(text) => self.put_from_file(&key, text, source),
                        None => {
                            self.errors.push(format!("{source}: {key} is no list of whole numbers: write [80, 100]"));
                        }
                    }
                }
                _ if keys::find(&key).is_some() => {
                    self.errors.push(format!("{source}: {key} is not a text or a whole number: write it in quotes"));
                }
                _ => self.unknown(&key, &source),
            }
            if let (Some(plan), DeValue::Table(inner)) = (key.strip_prefix("plans."), value.get_ref())
                && inner.is_empty()
            {
                // An empty plan is kept, so that it can be refused by name instead of being silently absent.
                let source = Source::File { path: path.to_owned(), line };
                self.plans.insert((plan.to_owned(), String::new()), Raw { text: String::new(), source });
            }
        }
    }

    fn put_from_file(&mut self, key: &str, text: String, source: Source) {
        if let Some((plan, limit)) = key.strip_prefix("plans.").and_then(|rest| rest.rsplit_once('.')) {
            self.plans.insert((plan.to_owned(), limit.to_owned()), Raw { text, source });
        } else if keys::find(key).is_none() {
            self.unknown(key, &source);
        } else if text.is_empty() {
            // As of a flag: what a template filled with nothing is no wish for the default, least of all of a secret.
            self.errors.push(format!("{source}: {key} has no value: write one, or leave the line out"));
        } else {
            self.values.insert(key.to_owned(), Raw { text, source });
        }
    }

    fn read_environment(&mut self, environment: &dyn Environment) {
        for key in keys::KEYS {
            // The first name wins even when it is wrong: falling back to the second would hide the mistake.
            for variable in key.variables {
                if let Some(raw) = self.variable(key, variable, environment) {
                    self.values.insert(key.name.to_owned(), raw);
                    break;
                }
            }
        }
        let known: Vec<&str> =
            keys::KEYS.iter().flat_map(|key| key.variables).copied().chain(["TOLLGATE_CONFIG"]).collect();
        for name in environment.names() {
            // Only a warning: an orchestrator may set names of its own, as Kubernetes does for a service `tollgate`.
            let foreign = ["TOLLGATE_SERVICE_", "TOLLGATE_PORT"].iter().any(|prefix| name.starts_with(prefix));
            if !name.starts_with("TOLLGATE_") || foreign || known.contains(&name.as_str()) {
                continue;
            }
            match name.strip_suffix("_FILE").filter(|plain| known.contains(plain)) {
                Some(plain) => self.file_of(plain, environment),
                None => {
                    let hint = hint(&name, known.iter().copied());
                    self.warnings.push(format!("environment {name} sets nothing{hint}"));
                }
            }
        }
    }

    /// Judges `X_FILE`, which is read for secrets alone. An error, since what is passed over so may be a certificate, without
    /// which all goes in the clear, or the whole configuration.
    fn file_of(&mut self, variable: &str, environment: &dyn Environment) {
        let key = keys::KEYS.iter().find(|key| key.variables.contains(&variable));
        let name = format!("{variable}_FILE");
        if key.is_some_and(|key| key.secret) || environment.get(&name).is_none() {
            return;
        }
        let ends = [".cert", ".tls.key", "ca", ".file"];
        let takes_path = key.is_none_or(|key| ends.iter().any(|end| key.name.ends_with(end)));
        let value = if takes_path { "FILE" } else { "VALUE" };
        self.errors.push(format!("environment {name} sets nothing: write {variable}={value}"));
    }

    fn variable(&mut self, key: &Key, variable: &str, environment: &dyn Environment) -> Option<Raw> {
        let direct = environment.get(variable);
        let file_variable = format!("{variable}_FILE");
        let path = if key.secret { environment.get(&file_variable) } else { None };
        match (direct, path) {
            (None, None) => None,
            (Some(text), None) => Some(Raw { text, source: Source::Variable(variable.to_owned()) }),
            (Some(_), Some(_)) => {
                self.errors.push(format!("{variable} and {file_variable} are both set: unset one of them"));
                None
            }
            (None, Some(path)) => self.secret_from(file_variable, &path),
        }
    }

    fn secret_from(&mut self, variable: String, path: &str) -> Option<Raw> {
        self.files.push(Stamped::now(Path::new(path)));
        match read_bounded(Path::new(path)) {
            Ok(text) if !text.trim().is_empty() => {
                Some(Raw { text: text.trim().to_owned(), source: Source::Variable(variable) })
            }
            Ok(_) => {
                self.errors.push(format!("{variable}: {path} is empty: write the secret into it"));
                None
            }
            Err(reason) => {
                self.errors.push(format!("{variable}: {path}: {reason}: name a readable file"));
                None
            }
        }
    }

    fn read_flags(&mut self, flags: &[Flag]) {
        for Flag { name, key, value } in flags {
            let source = Source::Flag(name.clone());
            if keys::find(key).is_none() {
                self.unknown(key, &source);
            } else if value.is_empty() {
                self.errors.push(format!("{source}: {key} has no value: write one, or leave the flag out"));
            } else {
                self.values.insert(key.clone(), Raw { text: value.clone(), source });
            }
        }
    }

    fn unknown(&mut self, key: &str, source: &Source) {
        let hint = hint(key, keys::KEYS.iter().map(|key| key.name));
        // A name is shown only if it can be nothing else: in a file that is no TOML it may be half of a URL with its password.
        let is_name = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let shown = if is_name { key } else { "a name with signs that no name has" };
        self.errors.push(format!("{source}: {shown} is no configuration key{hint}"));
    }
}

/// The texts of a list, with commas between them.
fn texts(values: &DeArray<'_>) -> Option<String> {
    let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    };
    values.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
}

/// The same of whole numbers.
fn numbers(values: &DeArray<'_>) -> Option<String> {
    let number = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Integer(value) if value.radix() == 10 => Some(value.as_str().replace('_', "")),
        _ => None,
    };
    values.iter().map(number).collect::<Option<Vec<_>>>().map(|numbers| numbers.join(","))
}

fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match keys::nearest(wrong, known) {
        Some(name) => format!(": did you mean {name}?"),
        None => ": remove it, or see config/tollgate.toml for all keys".to_owned(),
    }
}

fn takes_decimals(key: &str) -> bool {
    budgets::is_money(key) || (key.starts_with("plans.") && key.ends_with(PRICE_PERCENT))
}

fn is_section(key: &str) -> bool {
    let is_plan = key.strip_prefix("plans.").is_some_and(|plan| !plan.contains('.'));
    key == "plans"
        || is_plan
        || keys::KEYS.iter().any(|known| known.name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

fn read_bounded(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| plain(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| plain(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err("larger than 1 MiB".into());
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        _ => error.to_string(),
    }
}
