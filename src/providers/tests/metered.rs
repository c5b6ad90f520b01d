//! Every billed line of the tables of routes: what its answers are read as, whole and cut at every byte.

use super::super::*;
use super::{looked, replay};

#[path = "../../../tests/fixtures/metered.rs"]
mod fixtures;

use fixtures::{CASES, Case, Cost, FORM};

impl Case {
    fn asked(&self) -> (&'static dyn Provider, Endpoint, Call) {
        let (path, query) =
            self.target.split_once('?').map_or((self.target, None), |(path, query)| (path, Some(query)));
        let (provider, endpoint) = route(&Method::POST, path, self.place()).unwrap();
        let is_form = self.request.starts_with("--");
        let call = if is_form {
            assert_eq!(endpoint.body, BodyRule::Form, "{}", self.target);
            let mut form = FormReader::new(FORM).unwrap();
            form.feed(self.request.as_bytes()).unwrap();
            form.finish().unwrap();
            form.call(self.request.len() as u64)
        } else {
            provider.call(&endpoint, query, &Bytes::from_static(self.request.as_bytes())).unwrap()
        };
        (provider, endpoint, call)
    }

    fn place(&self) -> CredentialPlace {
        if self.provider == "gemini" { CredentialPlace::Google } else { CredentialPlace::Bearer }
    }

    fn tokens(&self) -> Tokens {
        Tokens::from_kinds(Tokens::KINDS.map(|kind| self.count(kind)))
    }

    fn quantities(&self) -> Quantities {
        Quantities::from_kinds(Quantities::KINDS.map(|kind| self.count(kind)))
    }

    fn count(&self, kind: &str) -> u64 {
        let all = Tokens::KINDS.iter().chain(&Quantities::KINDS);
        assert!(self.kinds.iter().all(|(known, _)| all.clone().any(|kind| kind == known)), "{:?}", self.kinds);
        self.kinds.iter().find(|(known, _)| *known == kind).map_or(0, |(_, count)| *count)
    }
}

#[test]
fn every_billed_line_has_a_case_and_every_case_a_line() {
    let rows = table();
    // A session's turns are read elsewhere, and tested there.
    for row in rows.iter().filter(|row| row.kind != Kind::Unbilled && !row.reads.is_session()) {
        let cases = CASES.iter().filter(|case| (case.provider, case.line) == (row.provider.as_str(), row.path));
        assert!(cases.count() > 0, "{} {} has no metering case", row.provider, row.path);
    }
    for case in CASES {
        let (provider, endpoint, _) = case.asked();
        let of_case = |row: &&Row| (row.provider.as_str(), row.path) == (case.provider, case.line);
        let row = rows.iter().find(of_case).unwrap_or_else(|| panic!("{} is no line", case.line));
        assert_eq!((provider.id().as_str(), endpoint.name), (row.provider.as_str(), row.name), "{}", case.target);
    }
}

#[test]
fn every_case_is_read_as_it_says_at_every_cut() {
    for case in CASES {
        let name = format!("{} {}", case.line, case.what);
        let (provider, endpoint, call) = case.asked();
        let reader = || provider.reader(&endpoint, &call, Some(case.answer_type));
        let body = case.answer.as_bytes();
        let (client, complete, reading) = replay(reader(), &[body]);
        let is_later = case.cost == Cost::Later;
        assert_eq!(reading.tokens, (case.reported && !is_later).then(|| case.tokens()), "{name}");
        assert_eq!(reading.deferred().is_some(), is_later, "{name}");
        assert!(!reading.distrusted, "{name}");
        let model = reading.model.clone().unwrap_or_else(|| call.model.clone());
        assert_eq!(model, case.model, "{name}");
        assert_eq!(reading.quantities, case.quantities(), "{name}");
        let has_gap = case.count("web_searches") > 0 || case.count("cache_write_long_tokens") > 0;
        assert_eq!(reading.uncounted, matches!(case.cost, Cost::Part(_)) && !has_gap, "{name}");
        let ends_itself = case.answer_type.starts_with("application/json")
            || ["[DONE]", "response.", ".done"].iter().any(|mark| case.answer.contains(mark));
        assert_eq!(complete, ends_itself, "{name}");
        for cut in 0..=body.len() {
            let (head, tail) = body.split_at(cut);
            let got = replay(reader(), &[head, tail]);
            assert_eq!(got, (client.clone(), complete, reading.clone()), "{name} cut at {cut}");
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(looked(reader(), &bytes), (complete, reading), "{name} byte by byte");
    }
}

#[test]
fn what_is_cut_before_its_usage_is_estimated_by_what_came() {
    let worth = |what: &str, line: &str, body: &[u8]| {
        let case = CASES.iter().find(|case| (case.line, case.what) == (line, what)).unwrap();
        let (provider, endpoint, call) = case.asked();
        let (_, complete, reading) = replay(provider.reader(&endpoint, &call, Some(case.answer_type)), &[body]);
        assert_eq!((complete, reading.tokens), (line.starts_with('{'), None), "{line}");
        reading.output_bytes
    };
    let delta =
        |kind: &str, member: &str, text: &str| format!("data: {{\"type\":\"{kind}\",\"{member}\":\"{text}\"}}\n\n");
    let text = delta("transcript.text.delta", "delta", "Please pay.");
    assert_eq!(worth("a stream", "/v1/audio/transcriptions", text.as_bytes()), 11);
    assert_eq!(worth("subtitles", "/v1/audio/transcriptions", b"{\"usage\":{\"input_tokens\":1}}"), 28);
    // Four bytes for a token of 800 bytes of audio, which are 1,068 of base64.
    assert_eq!(worth("audio", "/v1/audio/speech", &[0xff; 8000]), 40);
    let audio = delta("speech.audio.delta", "audio", &"A".repeat(10_680 - 40));
    assert_eq!(worth("events", "/v1/audio/speech", audio.as_bytes()), 40);
    let image = CASES.iter().find(|case| case.what == "an image and no usage at all").unwrap();
    assert_eq!(worth(image.what, image.line, image.answer.as_bytes()), 4 + 4 * 1290);
}
