//! Tests that the documents say what the code does: `config/tollgate.toml` and the table in README.md are written from
//! [`KEYS`]. With `TOLLGATE_BLESS=1` in the environment they are written anew instead of compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use super::budgets::{About, PLAN_KEYS, help};
use super::plans::{ALLOWED_MODELS, BUILT_IN, ON_COUNTERS_DOWN, PRICE_PERCENT, PRICES};
use super::*;
use crate::domain::plan::Scope;

fn in_package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The value of `text` as TOML writes it.
fn toml_value(text: &str) -> String {
    if text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok() { text.to_owned() } else { format!("{text:?}") }
}

fn example_file() -> String {
    let mut file = String::from(
        "# Every configuration key of Tollgate with its default. A line that begins with #key is the default:\n\
         # take the # away to change it. The environment beats this file, flags beat the environment.\n\
         # A key with nothing behind the = has no default.\n\
         # `tollgate check --config FILE` shows what is in effect and why.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (group, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if group != section {
            write!(file, "\n[{group}]").unwrap();
            section = group;
            file.push('\n');
        } else {
            file.push('\n');
        }
        let variables = key.variables.join(" or ");
        let from_file = if key.secret { "; or from a file with …_FILE" } else { "" };
        writeln!(file, "# {}\n# Environment: {variables}{from_file}", key.help).unwrap();
        let default = if key.default.is_empty() { String::new() } else { format!(" {}", toml_value(key.default)) };
        writeln!(file, "#{name} ={default}").unwrap();
    }
    file.push_str(
        "\n# Plans: any name out of a-z, 0-9, '_' and '-'. -1 is unlimited. A month is a calendar month, a day a calendar\n\
         # day, of the tenant's zone. Limits of a plan, and how calls are held to them (README.md says what each means):",
    );
    for keys in PLAN_KEYS.chunks(6) {
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        write!(file, "\n#   {}", names.join(" ")).unwrap();
    }
    write!(
        file,
        "\n# While shared counters cannot be asked, calls of a plan with a limit are answered 503, or admitted from what is left\n\
         # of a lease first: {ON_COUNTERS_DOWN} = \"refuse\" (the default) or \"lease\".\n\
         # Models that a plan may use, others are answered 403: {ALLOWED_MODELS} = [\"gpt-4o*\", \"gemini-2.5-*\"]. All by default.\n\
         # What is billed beside the provider's cost: {PRICE_PERCENT} = 120 is that cost and a fifth, 97.5 a discount; 100 by default.\n\
         # {PRICES} = \"FILE\" names a price file of the plan: its prices are billed as they stand for the models in it.\n"
    )
    .unwrap();
    for (plan, key, value) in BUILT_IN {
        writeln!(file, "\n[plans.{plan}]\n#{key} = {value}").unwrap();
    }
    file
}

fn readme_table() -> String {
    let mut table = String::from("| key | environment | default | |\n|---|---|---|---|\n");
    for key in KEYS {
        let variables: Vec<_> = key.variables.iter().map(|name| format!("`{name}`")).collect();
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        writeln!(table, "| `{}` | {} | {default} | {} |", key.name, variables.join(", "), key.help).unwrap();
    }
    table
}

fn plan_table() -> String {
    let mut table = String::from("| key of a plan | default | |\n|---|---|---|\n");
    for key in PLAN_KEYS.iter() {
        let scopes = match key.about {
            About::Limit(Scope::Tenant, ..) | About::Rate(Scope::Tenant, _) => {
                format!(", `key_{0}`, `user_{0}`, `kb_{0}`", key.name)
            }
            About::Limit(..) | About::Rate(..) => continue,
            _ => String::new(),
        };
        let (default, help) = help(key.about);
        writeln!(table, "| `{}`{scopes} | `{default}` | {help} |", key.name).unwrap();
    }
    table
}

/// Several tests write parts of one document, and run at once: one at a time reads it and writes it whole.
static DOCUMENTS: Mutex<()> = Mutex::new(());

/// Compares a document, or the part between two marks of it, with what the code says.
pub(crate) fn check(path: &str, marks: Option<(&str, &str)>, expected: &str) {
    // A test that found a document stale leaves the lock poisoned, and nothing half done.
    let _one_at_a_time = DOCUMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let path = in_package(path);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let (before, found, after) = match marks {
        None => ("", text.as_str(), ""),
        Some((begin, end)) => {
            let (before, rest) = text.split_once(begin).unwrap();
            let (found, after) = rest.split_once(end).unwrap();
            (before, found, after)
        }
    };
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        let (begin, end) = marks.unwrap_or(("", ""));
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "{} is stale: run the tests once with TOLLGATE_BLESS=1", path.display());
    }
}

#[test]
fn the_example_file_documents_every_key_with_its_default() {
    check("config/tollgate.toml", None, &example_file());
}

#[test]
fn the_table_in_the_readme_is_the_code() {
    check("README.md", Some(("<!-- config -->\n", "<!-- /config -->")), &readme_table());
}

#[test]
fn the_table_of_plans_in_the_readme_is_the_code() {
    check("README.md", Some(("<!-- plans -->\n", "<!-- /plans -->")), &plan_table());
}

#[test]
fn the_example_file_with_all_keys_uncommented_is_the_default_config() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.toml");
    let text = example_file();
    let is_key = |rest: &&str| !rest.starts_with(' ') && !rest.ends_with('=');
    let uncommented: Vec<&str> =
        text.lines().map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line)).collect();
    std::fs::write(&path, uncommented.join("\n")).unwrap();
    let nothing: BTreeMap<String, String> = BTreeMap::new();
    let from_file = Config::load(&[], &nothing, Some(&path)).unwrap();
    let default = Config::load(&[], &nothing, None).unwrap();
    let values = |config: &Config| -> Vec<(String, String)> {
        config.explain().iter().map(|row| (row.key.clone(), row.value.clone())).collect()
    };
    assert_eq!(values(&from_file), values(&default));
    let from_the_file = from_file.explain().iter().filter(|row| matches!(row.source, Source::File { .. })).count();
    let without_default = KEYS.iter().filter(|key| key.default.is_empty()).count();
    assert_eq!(from_the_file, KEYS.len() - without_default + BUILT_IN.len());
}
