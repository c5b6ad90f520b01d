//! Cells of CSV that hold what anybody wrote.

#[path = "../../src/edge/api/cell.rs"]
mod cell;

/// The records of a text, by a slow reader of RFC 4180 that splits at `separator`. Quotes count where a cell begins with one.
fn records(text: &str, separator: char) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut chars, mut is_quoted) = (text.chars().peekable(), false);
    let mut is_begin = true;
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if is_quoted => is_quoted = false,
            '"' if is_begin => is_quoted = true,
            _ if is_quoted => cell.push(c),
            '\r' | '\n' => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
                is_begin = true;
                continue;
            }
            _ if c == separator => {
                record.push(std::mem::take(&mut cell));
                is_begin = true;
                continue;
            }
            _ => cell.push(c),
        }
        is_begin = false;
    }
    record.push(cell);
    records.push(record);
    records
}

/// What a spreadsheet could compute.
fn is_formula(cell: &str) -> bool {
    let cell = cell.trim_start_matches(|c: char| c == ' ' || c == '\u{a0}' || c == '\u{3000}' || c == '\u{feff}');
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

/// As many cells are read as were written, none is a formula under any separator, and each holds its text.
pub fn line(data: &[u8]) {
    let texts: Vec<String> =
        data.split(|byte| *byte == 0).take(8).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let written: Vec<_> = texts.iter().map(|text| cell::text(text)).collect();
    let line = written.join(",");
    let read = records(&line, ',');
    assert_eq!(read.len(), 1, "{line:?}");
    assert_eq!(read[0].len(), texts.len(), "{line:?}");
    for (cell, text) in read[0].iter().zip(&texts) {
        assert!(!is_formula(cell), "{cell:?} of {text:?}");
        // What was put in is apostrophes.
        let mut rest = text.chars().peekable();
        for c in cell.chars() {
            if rest.peek() == Some(&c) {
                rest.next();
            } else {
                assert_eq!(c, '\'', "{cell:?} of {text:?}");
            }
        }
        assert_eq!(rest.next(), None, "{cell:?} of {text:?}");
    }
    for separator in [';', '\t', '|'] {
        for cell in records(&line, separator).concat() {
            assert!(!is_formula(&cell), "{separator:?}: {cell:?} in {line:?}");
        }
    }
}
