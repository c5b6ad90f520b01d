//! How a log line is written so that it stays one line with its own fields, whatever clients, providers and servers put
//! into the values.
//!
//! May use: `domain`. The library escapes most of what commands a terminal in messages, nothing in fields, and no line ends.

use std::fmt::{self, Debug};
use std::io::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::writer::MakeWriter;

use crate::domain::printable::{is_tricky, printable, printable_json};

/// Writes the fields of text lines: `name=value`, in quotes where a value could be taken for more than one.
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return self.writer.write_str(&printable(value));
        }
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
        } else {
            write!(self.writer, "{name}=")?;
        }
        // A value without blanks is one word; others could hold what looks like the next field.
        if value.contains(|c: char| is_tricky(c) || c.is_whitespace() || matches!(c, '"' | '=' | '\\')) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            write!(self.writer, "\"{}\"", printable(&value))
        } else {
            self.writer.write_str(value)
        }
    }

    fn record(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() {
            self.result = self.write(field.name().trim_start_matches("r#"), value);
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record(field, &format!("{value:?}"));
    }
}

/// Writes lines of JSON to what `M` makes, with all that a terminal obeys or a reader takes for a line end written out.
pub(super) struct JsonLines<M>(pub M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for JsonLines<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

/// The log hands over each line whole.
pub(super) struct JsonLine<W>(W);

impl<W: Write> Write for JsonLine<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = str::from_utf8(bytes).ok().and_then(|line| line.strip_suffix('\n'));
        match line.and_then(printable_json) {
            Some(mut written) => {
                written.push('\n');
                self.0.write_all(written.as_bytes())?;
            }
            None => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Text that a log wrote.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HOSTILE: [&str; 9] = [
        "a\nINFO tollgate: Request is booked. tenant=globex",
        "a\r\n\r\n",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "a\u{2028}b\u{2029}c\u{85}d\u{b}e",
        "\u{202e}\u{2066}",
        "x status=200 tenant=globex",
        "\" status=200 x=\"",
        "\\\" status=200",
    ];

    fn say(value: &str) {
        tracing::info!(target: "tollgate::t", model = %value, user = value, debug = ?value, status = 402_u16, "Line: {value}.");
    }

    #[test]
    fn no_value_makes_a_second_line_a_second_field_or_an_escape() {
        for value in HOSTILE {
            for ansi in [false, true] {
                let kept = Kept::default();
                let writer = kept.clone();
                let layer = fmt::layer().fmt_fields(TextFields).with_ansi(ansi).with_writer(move || writer.clone());
                tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || say(value));
                let text = kept.text();
                let line = text.strip_suffix('\n').unwrap();
                // Its own colours are all that a terminal obeys.
                let plain = if ansi {
                    ["0", "2", "3", "32"].iter().fold(line.to_owned(), |l, c| l.replace(&format!("\u{1b}[{c}m"), ""))
                } else {
                    line.to_owned()
                };
                assert!(!plain.contains(is_tricky), "{value:?}: {plain:?}");
                let fields = unquoted(plain.split_once(" model=").unwrap().1);
                let names: Vec<&str> =
                    fields.split(' ').filter_map(|field| field.split_once('=')).map(|f| f.0).collect();
                assert_eq!(names, ["user", "debug", "status"], "{value:?}: {plain:?}");
            }
        }
    }

    /// The text without what stands in quotes.
    fn unquoted(text: &str) -> String {
        let (mut out, mut is_quoted, mut is_escaped) = (String::new(), false, false);
        for c in text.chars() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ if !is_quoted => out.push(c),
                _ => {}
            }
        }
        assert!(!is_quoted, "{text:?}");
        out
    }

    #[test]
    fn a_line_of_json_is_one_line_and_says_what_it_was_told() {
        for value in HOSTILE {
            let kept = Kept::default();
            let writer = kept.clone();
            let layer = fmt::layer().json().flatten_event(true).with_writer(JsonLines(move || writer.clone()));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || say(value));
            let text = kept.text();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_tricky), "{value:?}: {line:?}");
            let object: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&object["model"], &object["user"]), (&value.into(), &value.into()));
            assert_eq!(object["status"], 402);
        }
    }
}
