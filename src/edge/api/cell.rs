//! A cell of CSV (RFC 4180) that holds a text which somebody else chose.
//!
//! Pure: text in, text out.

use std::borrow::Cow;

/// A cell of text. What a spreadsheet would take for a formula gets an apostrophe in front and stands in quotes: user ids
/// are written by whoever calls, and the report is opened by the operator. Figures are ours, do not come here and stay
/// numbers, with their sign.
pub(super) fn text(cell: &str) -> Cow<'_, str> {
    let guarded = guard(cell);
    if matches!(guarded, Cow::Owned(_)) || guarded.contains(['"', ',', ';', '|', '\t', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", guarded.replace('"', "\"\"")))
    } else {
        guarded
    }
}

/// The text with an apostrophe before each place where a formula could begin: the start of the cell, and what follows a
/// separator or line end of a spreadsheet that is not set to commas and so does not see our quotes as such.
fn guard(cell: &str) -> Cow<'_, str> {
    let mut written = String::new();
    let mut rest = cell;
    let mut is_changed = false;
    while !rest.is_empty() {
        let end = rest.find(SEPARATORS).map_or(rest.len(), |at| at + 1);
        let (part, next) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if begins_a_formula(part) {
            is_changed = true;
            written.push('\'');
        }
        written.push_str(part);
        rest = next;
    }
    if is_changed { Cow::Owned(written) } else { Cow::Borrowed(cell) }
}

/// What spreadsheets split lines at, and cells, beside the comma, which our quotes are for.
const SEPARATORS: [char; 5] = [';', '|', '\t', '\r', '\n'];

/// The characters that OWASP names, in their full-width forms too, which some spreadsheets read as the plain ones. Blanks
/// before them may be cut by an import, and a quote that is doubled is an empty text where another separator stands before
/// it: what stands behind them is looked at.
fn begins_a_formula(part: &str) -> bool {
    let is_blank = |c: char| matches!(c, ' ' | '"' | '\u{feff}') || (c.is_whitespace() && !c.is_control());
    part.trim_start_matches(is_blank)
        .starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_two_cells() {
        for (cell, written) in [
            ("gpt-4", "gpt-4"),
            ("", ""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t'=1\""),
            ("\r=1", "\"'\r'=1\""),
            ("\n=1", "\"'\n'=1\""),
            ("\u{ff1d}1+1", "\"'\u{ff1d}1+1\""),
            ("\u{ff0b}1", "\"'\u{ff0b}1\""),
            ("\u{ff0d}1", "\"'\u{ff0d}1\""),
            ("\u{ff20}A1", "\"'\u{ff20}A1\""),
            ("  =1", "\"'  =1\""),
            ("\u{a0}\u{feff}=1", "\"'\u{a0}\u{feff}=1\""),
            ("a,b", "\"a,b\""),
            ("a;b", "\"a;b\""),
            ("a;=1", "\"a;'=1\""),
            ("a\t@x|-1, +2", "\"a\t'@x|'-1, +2\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            // Found by the fuzz target of cells: split at semicolons, the doubled quote is an empty text before a formula.
            ("e;\"=1+1;\"", "\"e;'\"\"=1+1;\"\"\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
        ] {
            assert_eq!(text(cell), written, "{cell:?}");
        }
    }
}
