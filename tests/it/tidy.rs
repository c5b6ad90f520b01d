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
        "benches",
        "config",
        "deploy",
        "docs",
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
