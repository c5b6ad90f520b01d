//! The readers below those of answers, compared with slow ones that are plainly right.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::control::Control;

#[path = "../../src/providers/elide.rs"]
mod elide;
#[path = "../../src/providers/json.rs"]
mod json;
#[path = "../../src/providers/json_array.rs"]
mod json_array;
#[path = "../../src/providers/json_doc.rs"]
mod json_doc;
#[path = "../../src/providers/nesting.rs"]
mod nesting;
#[path = "../../src/providers/sse.rs"]
mod sse;

/// The data of each event as the standard says it (WHATWG HTML, 9.2.6), of a stream that is there as a whole.
fn events_of(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(&[0xEF, 0xBB, 0xBF][..]).unwrap_or(stream);
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < stream.len() {
        match stream[at] {
            b'\r' => {
                at += usize::from(stream.get(at + 1) == Some(&b'\n'));
                lines.push(std::mem::take(&mut line));
            }
            b'\n' => lines.push(std::mem::take(&mut line)),
            byte => line.push(byte),
        }
        at += 1;
    }
    let (mut events, mut data) = (Vec::new(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                events.push(data.join(&b'\n'));
            }
            data = Vec::new();
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &[][..]),
        };
        if field == b"data" {
            data.push(value.strip_prefix(b" ").unwrap_or(value).to_vec());
        }
    }
    events
}

/// Events are those of the standard, however the stream is cut.
pub fn sse_scanner(data: &[u8]) {
    let (stream, pieces) = Control(data).cut();
    let expected = events_of(stream);
    for pieces in [pieces.to_vec(), stream.chunks(1).collect(), vec![stream]] {
        let (mut scanner, mut seen) = (sse::SseScanner::default(), Vec::new());
        for piece in pieces {
            let mut last = 0;
            scanner.feed(piece, |event| {
                assert!(event.end > last || event.end == 0 || last == 0);
                assert!(event.end <= piece.len());
                last = event.end;
                seen.extend(event.data.map(<[u8]>::to_vec));
            });
        }
        assert_eq!(seen, expected);
    }
}

/// Members, elements, counts and brackets are those that serde_json finds.
pub fn json_members(data: &[u8]) {
    const NAMES: [&str; 4] = ["a", "usage", "model", "b"];
    let (text, pieces) = Control(data).cut();
    let object = serde_json::from_slice::<Value>(text).ok().and_then(|value| value.as_object().cloned());
    let mut seen: [Option<String>; 4] = Default::default();
    let read = json::members(text, &NAMES, |index, raw| seen[index] = Some(raw.get().to_owned()));
    if let Some(object) = &object {
        assert!(read.is_ok());
        for (name, raw) in NAMES.iter().zip(&seen) {
            let value = raw.as_deref().map(|raw| serde_json::from_str::<Value>(raw).unwrap());
            assert_eq!(object.get(*name), value.as_ref(), "{name}");
        }
        let mut values = 0;
        assert!(json::values(text, |_| values += 1).is_ok());
        assert!(values >= object.len());
    } else if std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_err()) {
        // What is passed over need not be text.
        assert!(read.is_err());
    }
    let array = serde_json::from_slice::<Vec<Value>>(text).ok();
    let mut elements = Vec::new();
    let read = json::elements(text, |raw| {
        elements.push(raw.get().to_owned());
        true
    });
    if let Some(array) = &array {
        assert!(read.is_ok());
        let parsed: Vec<Value> = elements.iter().map(|raw| serde_json::from_str(raw).unwrap()).collect();
        assert_eq!(&parsed, array);
    }
    // What is streamed: elements that are objects or arrays, at any cut.
    let split = |pieces: &[&[u8]]| {
        let (mut splitter, mut seen) = (json_array::ArraySplitter::default(), Vec::new());
        pieces.iter().for_each(|piece| splitter.feed(piece, |element, _| seen.extend(element.map(<[u8]>::to_vec))));
        (seen, splitter.is_closed())
    };
    let whole = split(&[text]);
    assert_eq!(split(&pieces), whole);
    assert_eq!(split(&text.chunks(1).collect::<Vec<_>>()), whole);
    if array.is_some() {
        let nested: Vec<Vec<u8>> =
            elements.iter().filter(|raw| raw.starts_with(['{', '['])).map(|raw| raw.clone().into_bytes()).collect();
        assert_eq!(whole, (nested, true));
    }
    let document = |pieces: &[&[u8]]| {
        let (mut buffer, mut seen) = (json_doc::DocumentBuffer::default(), None);
        pieces.iter().for_each(|piece| buffer.feed(piece, |document, _| seen = Some(document.to_vec())));
        (seen, buffer.is_closed())
    };
    let whole = document(&[text]);
    assert_eq!(document(&pieces), whole);
    if object.is_some() || array.is_some() {
        let read: Value = serde_json::from_slice(whole.0.as_deref().unwrap()).unwrap();
        assert_eq!(read, serde_json::from_slice::<Value>(text).unwrap());
    }
    if let Ok(raw) = serde_json::from_slice::<&RawValue>(text) {
        // Half of a surrogate pair is no text, and passed over unread.
        let Ok(value) = serde_json::from_str::<Value>(raw.get()) else { return };
        let count = value.as_u64().filter(|_| value.is_u64() && raw.get() != "-0");
        assert_eq!(
            json::Count::of(raw),
            match count {
                _ if value.is_null() => json::Count::Null,
                Some(count) => json::Count::Whole(count),
                None => json::Count::Bad,
            }
        );
        assert_eq!(json::text(raw).as_deref(), value.as_str());
        if let Some(thousandths) = json::thousandths(raw.get()) {
            // To a part in a thousand million, which is what a double is good for here.
            let float = value.as_f64().unwrap() * 1000.0;
            assert!((thousandths as f64 - float).abs() <= 1.0 + float * 1e-9, "{} {thousandths}", raw.get());
        }
    }
}
