//! The rules of the house that no compiler knows: layers, file sizes, first lines, words.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 700;

/// A layer and the layers its files may use. Who is not listed may use everything.
const LAYERS: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("providers", &["domain"]),
    ("ports", &["domain"]),
    ("metering", &["domain", "providers", "ports"]),
    ("adapters", &["domain", "ports"]),
    ("edge", &["domain", "providers", "ports", "metering"]),
    ("config", &["domain"]),
    // It fills the port of those who hear of events.
    ("telemetry", &["domain", "ports"]),
];

/// Every layer there is, to tell a layer's name in a path from others.
const NAMES: [&str; 11] =
    ["domain", "providers", "ports", "metering", "adapters", "edge", "config", "telemetry", "boot", "cli", "demo"];

/// Crates that the pure core must do without.
const NOT_IN_THE_CORE: [&str; 8] =
    ["tokio", "pingora_core", "pingora_http", "sqlx", "hyper", "axum", "std::time", "std::net"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Every Rust file below `directory`, with its path from the root and its text.
fn rust_files(directory: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "no file below {directory}");
    files.sort();
    files
}

/// The code of a file without comments and strings' lines of prose: good enough to look for words.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(at, line)| {
        let line = line.split("//").next().unwrap_or_default();
        (!line.trim().is_empty()).then_some((at + 1, line))
    })
}

/// The layer of a file below `src`: the first directory, or the file's own name.
fn layer(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap_or(name);
    rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs")
}

/// The layers that a line of code names by a path from the crate.
fn named_layers(line: &str) -> Vec<&'static str> {
    NAMES
        .into_iter()
        .filter(|name| {
            ["crate::", "tollgate::", "crate::{"].iter().any(|from| {
                line.match_indices(&format!("{from}{name}")).any(|(at, found)| {
                    !line[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
                })
            })
        })
        .collect()
}

#[test]
fn arrows_between_layers_point_down() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files("src") {
        let Some((own, may_use)) = LAYERS.iter().find(|(known, _)| *known == layer(&name)) else { continue };
        // Tests may borrow from other layers; they build nothing on them.
        if name.ends_with("tests.rs") || name.contains("/tests/") || name.ends_with("fakes.rs") {
            continue;
        }
        for (line, code) in code(text.split("#[cfg(test)]").next().unwrap_or_default()) {
            for used in named_layers(code) {
                if used != *own && !may_use.contains(&used) {
                    wrong.push(format!("{name}:{line}: {own} uses {used}"));
                }
            }
            if ["domain", "providers"].contains(own) {
                wrong.extend(
                    NOT_IN_THE_CORE
                        .iter()
                        .filter(|word| code.contains(&format!("{word}::")) || code.contains(&format!("{word};")))
                        .map(|word| format!("{name}:{line}: the pure core uses {word}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_layer_is_known() {
    for (name, _) in rust_files("src") {
        let layer = layer(&name);
        assert!(NAMES.contains(&layer) || ["lib", "main"].contains(&layer), "{name} is in no known layer");
    }
}

#[test]
fn a_file_says_what_it_is_for_and_is_not_too_long() {
    let mut wrong = Vec::new();
    for directory in ["src", "tests", "benches"] {
        if !root().join(directory).is_dir() {
            continue;
        }
        for (name, text) in rust_files(directory) {
            if !text.starts_with("//! ") {
                wrong.push(format!("{name} does not begin with //!"));
            }
            let lines = text.lines().count();
            if lines > LINES_MAX {
                wrong.push(format!("{name} has {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_that_must_not_stand_in_the_code_do_not() {
    // Written in two parts, as this file is searched too.
    let everywhere = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let floats = [concat!("f", "32"), concat!("f", "64")];
    let mut wrong = Vec::new();
    for directory in ["src", "tests"] {
        for (name, text) in rust_files(directory) {
            for (at, line) in text.lines().enumerate() {
                wrong.extend(
                    everywhere
                        .iter()
                        .filter(|word| line.contains(**word))
                        .map(|word| format!("{name}:{}: {word}", at + 1)),
                );
            }
            // A metric is no money: its client takes floating point.
            if directory == "src" && layer(&name) != "telemetry" {
                for (at, line) in code(&text) {
                    let word = |word: &&&str| {
                        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == **word)
                    };
                    wrong.extend(floats.iter().filter(word).map(|word| format!("{name}:{at}: {word}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_of_the_top_level_is_missing_or_too_much() {
    let known = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "Dockerfile",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "benches",
        "config",
        "deny.toml",
        "deploy",
        "docs",
        "fuzz",
        "migrations",
        "src",
        "tests",
    ];
    for name in known {
        assert!(root().join(name).exists(), "{name} is missing");
    }
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let ignored = name.starts_with('.') || ["target", "data"].contains(&name.as_str());
        assert!(ignored || known.contains(&name.as_str()), "{name} is new on the top level");
    }
}

/// What of a ledger's ports names whose data it is about.
const NAMES_A_TENANT: [&str; 15] = [
    "TenantId",
    "&'a Tenant",
    "&'a Key",
    "&'a [CounterKey]",
    "UsageEvent",
    "SealedKey",
    "OwnedObject",
    "&'a Change",
    "SumsQuery",
    "EventsQuery",
    "AuditQuery",
    "CrossingsQuery",
    // By the credential and the idempotency key: a digest that nobody else can make.
    "Digest",
    // What everybody has in common.
    "version: &'a str",
    "KeptBook",
];

/// What names none, as it is no answer to a client's question.
const OF_THE_WHOLE_LEDGER: [&str; 21] = [
    // All tenants and keys, for the snapshot.
    "load",
    "revision",
    // By keys that were used a moment ago.
    "touch_keys",
    "admin_key_hash",
    "set_admin_key_hash",
    "price_books",
    // By ids that come from the gateway's own journal and ledger: recovery, bills, corrections, verification.
    "known",
    "find",
    "corrections",
    "used",
    "walk",
    // Retention and readiness.
    "events_from",
    "old_events",
    "drop_events",
    "ledger_id",
    "ready",
    // What providers finish later: by its name, when the provider tells of it.
    "waiting",
    "claim",
    "settled",
    "forget",
    "forget_objects",
];

/// The signatures of the methods of a file's traits, by their names.
fn methods(text: &str) -> Vec<(String, String)> {
    let mut methods = Vec::new();
    for body in text.split("\npub trait ").skip(1) {
        let body = body.split("\n}\n").next().unwrap_or_default();
        for method in body.split("\n    fn ").skip(1) {
            let (name, _) = method.split_once(['<', '(']).expect("a method has parameters");
            let end = method.find([';', '{']).unwrap_or(method.len());
            methods.push((name.to_owned(), method[..end].to_owned()));
        }
    }
    methods
}

#[test]
fn every_question_to_the_ledger_names_a_tenant() {
    let files = ["continuations", "objects", "prices", "tenants", "units", "usage"];
    let mut asked = Vec::new();
    for file in files {
        let path = root().join(format!("src/ports/{file}.rs"));
        asked.extend(methods(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))));
    }
    assert!(asked.len() > 30, "{asked:?}");
    for (name, signature) in &asked {
        let names_one = NAMES_A_TENANT.iter().any(|word| signature.contains(word));
        let is_known = OF_THE_WHOLE_LEDGER.contains(&name.as_str());
        assert!(names_one != is_known, "{signature}");
    }
    for name in OF_THE_WHOLE_LEDGER {
        assert!(asked.iter().any(|(known, _)| known == name), "{name} is gone");
    }
    // A client's question comes to a store through `metering` alone, where its tenant is decided.
    for (name, text) in rust_files("src/edge") {
        for (line, code) in code(text.split("#[cfg(test)]").next().unwrap_or_default()) {
            let asks = ["UsageStore", "TenantStore", "UnitStore", "ObjectStore", "PriceStore"]
                .iter()
                .any(|store| code.contains(store));
            assert!(!asks || name.contains("tests"), "{name}:{line}: the edge asks a store");
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attacker |"));
    let sources: Vec<(String, String)> = rust_files("src").into_iter().chain(rust_files("tests")).collect();
    let (mut wrong, mut named) = (Vec::new(), 0);
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("a row without a test: {row}"));
        }
        named += names.len();
        for name in names {
            // A command stands as its path, a test or a module of tests as cargo shows it.
            let exists = if name.contains('/') {
                root().join(name.split(' ').next().unwrap_or_default()).exists()
            } else {
                is_tested(&sources, name)
            };
            if !exists {
                wrong.push(format!("{name} is no test"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(named > 20, "{named} tests are named: is the table read?");
}

/// Whether there is a test of that path: `module::test` or a whole `module`, below `src` or `tests/it`.
fn is_tested(sources: &[(String, String)], name: &str) -> bool {
    let is_at = |file: &str, module: &str| {
        let path = module.replace("::", "/");
        ["src", "tests/it"].iter().any(|below| {
            let place = format!("{below}/{path}");
            file == format!("{place}.rs") || file.starts_with(&format!("{place}/"))
        })
    };
    let attributed = |text: &str, function: &str| {
        text.split(&format!("fn {function}(")).next().is_some_and(|before| {
            before.len() < text.len() && before.trim_end().lines().rev().take(4).any(|line| line.contains("test]"))
        })
    };
    // Unit tests stand at the end of the file that they are of.
    let module_of = |module: &str| module.trim_end_matches("::tests").to_owned();
    let (module, function) = name.rsplit_once("::").unwrap_or(("", name));
    sources.iter().any(|(file, text)| {
        let here = is_at(file, module) || is_at(file, &module_of(module));
        (here && attributed(text, function))
            || ((is_at(file, name) || is_at(file, &module_of(name))) && text.contains("test]"))
    })
}
