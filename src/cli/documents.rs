//! Test that the table of routes in README.md is the one that requests are routed by.

use crate::config::documents::check;
use crate::providers::{self, Kind, Row};

/// Rows that differ only in the version of their path are one.
fn table() -> String {
    let mut rows: Vec<(Row, Vec<String>, String)> = Vec::new();
    for row in providers::table() {
        let path = row.path.trim_start_matches('/').to_owned();
        let (first, rest) = path.split_once('/').unwrap_or((&path, ""));
        let same = |(known, _, tail): &&mut (Row, Vec<String>, String)| {
            (&known.provider, known.methods, known.name, known.kind, tail.as_str())
                == (&row.provider, row.methods, row.name, row.kind, rest)
        };
        match rows.iter_mut().find(same) {
            Some((_, versions, _)) => versions.push(first.to_owned()),
            None => rows.push((row.clone(), vec![first.to_owned()], rest.to_owned())),
        }
    }
    let lines = rows.into_iter().map(|(row, versions, rest)| {
        let Row { provider, methods, path: _, name, kind } = row;
        let version = if versions.len() == 1 { versions.concat() } else { format!("{{{}}}", versions.join(",")) };
        let counts = match kind {
            Kind::Chat => "billed, one chat",
            Kind::Billed => "billed",
            Kind::Unbilled => "free",
        };
        format!("| {provider} | {methods} | `/{version}/{rest}` | {name} | {counts} |\n")
    });
    format!("| provider | methods | path | endpoint | |\n|---|---|---|---|---|\n{}", lines.collect::<String>())
}

#[test]
fn the_table_of_routes_in_the_readme_is_the_code() {
    check("README.md", Some(("<!-- routes -->\n", "<!-- /routes -->")), &table());
}
