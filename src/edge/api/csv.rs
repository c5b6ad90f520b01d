//! The cost report as CSV (RFC 4180), safe to open in a spreadsheet.

use std::borrow::Cow;

use crate::metering::reports::{CostReport, CostRow, GroupRow, Totals};

use super::wire::cost::CostSumsBody;

/// The columns after those that name the row.
const FIGURES: [&str; 17] = [
    "requests",
    "chats",
    "failed_requests",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "total_tokens",
    "unpriced_requests",
    "estimated_requests",
    "estimated_cost_usd",
];

/// One line for each group of the asked grouping; by provider and model where none was asked.
pub fn cost_report(report: &CostReport) -> String {
    let mut lines = Vec::new();
    if report.group_by.is_empty() {
        lines.push(header(&["provider", "model"]));
        for CostRow { provider, model, sums } in &report.rows {
            lines.push(line(&[Some(provider), Some(model)], *sums));
        }
    } else {
        lines.push(header(&report.group_by.iter().map(|dimension| dimension.as_str()).collect::<Vec<_>>()));
        for GroupRow { values, sums } in &report.groups {
            lines.push(line(&values.iter().map(Option::as_ref).collect::<Vec<_>>(), *sums));
        }
    }
    lines.concat()
}

fn header(names: &[&str]) -> String {
    let columns: Vec<&str> = names.iter().copied().chain(FIGURES).collect();
    columns.join(",") + "\r\n"
}

fn line(names: &[Option<&String>], sums: Totals) -> String {
    let figures = figures(sums.into());
    let names = names.iter().map(|name| name.map_or(Cow::Borrowed(""), |name| text(name)));
    names.chain(figures.into_iter().map(Cow::Owned)).collect::<Vec<_>>().join(",") + "\r\n"
}

fn figures(sums: CostSumsBody) -> [String; FIGURES.len()] {
    let CostSumsBody { requests, chats, failed_requests, tokens, estimated_cost_usd, unpriced_requests, estimated } =
        sums;
    let counts = [
        requests,
        chats,
        failed_requests,
        tokens.prompt_tokens,
        tokens.cached_tokens,
        tokens.cache_write_tokens,
        tokens.prompt_audio_tokens,
        tokens.prompt_image_tokens,
        tokens.cached_audio_tokens,
        tokens.completion_tokens,
        tokens.reasoning_tokens,
        tokens.completion_audio_tokens,
        tokens.completion_image_tokens,
        tokens.total_tokens,
        unpriced_requests,
        estimated.requests,
    ];
    let mut cells = counts.iter().map(u64::to_string).chain([estimated_cost_usd.0.to_string()]);
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

/// A cell of text. What a spreadsheet would take for a formula gets an apostrophe in front: user ids are written by
/// whoever calls, and the report is opened by the operator. Figures are ours and stay numbers.
fn text(cell: &str) -> Cow<'_, str> {
    let guarded = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    };
    if guarded.contains(['"', ',', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", guarded.replace('"', "\"\"")))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_two_cells() {
        for (cell, written) in [
            ("gpt-4", "gpt-4"),
            ("", ""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
        ] {
            assert_eq!(text(cell), written, "{cell:?}");
        }
    }
}
