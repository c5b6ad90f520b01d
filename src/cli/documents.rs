//! Test that the table of routes in README.md is the one that requests are routed by.

use crate::config::documents::check;
use crate::providers::{self, Kind, Reads, Row};

fn table() -> String {
    let lines = providers::table().into_iter().map(|row| {
        let Row { provider, methods, path, name, kind, reads } = row;
        let counts = match kind {
            Kind::Chat if reads.is_session() => "billed, one chat a turn",
            Kind::Chat => "billed, one chat",
            Kind::Billed => "billed",
            Kind::Unbilled => "free",
        };
        let metered_by = match (kind, reads, name) {
            (Kind::Unbilled, Reads::Nothing, _) => "",
            (Kind::Unbilled, Reads::Cache, _) => "not under a cost limit",
            (Kind::Unbilled, ..) if methods == "DELETE" => "what is done is billed before it goes",
            (Kind::Unbilled, ..) => "tells when it is done",
            (_, _, "responses") => "`usage`; in the background when it is done",
            _ => reads.as_str(),
        };
        format!("| {provider} | {methods} | `{path}` | {name} | {counts} | {metered_by} |\n")
    });
    let places: Vec<String> = providers::places_of_models().map(|place| format!("`{place}`")).collect();
    format!(
        "| provider | methods | path | endpoint | counts as | metered by |\n|---|---|---|---|---|---|\n{}\n\
         `{{a,b}}` is one of these, any other `{{…}}` one segment, `**` any rest, also none. `{{model}}:` stands behind each of\n\
         {}.\n",
        lines.collect::<String>(),
        places.join(",\n")
    )
}

#[test]
fn the_table_of_routes_in_the_readme_is_the_code() {
    check("README.md", Some(("<!-- routes -->\n", "<!-- /routes -->")), &table());
}
