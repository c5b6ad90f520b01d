//! Messages of sessions.

use http::Method;

use crate::control::Control;
use crate::providers::{CredentialPlace, SessionReader, route};

const PATHS: [&str; 3] = [
    "/v1/realtime",
    "/v1/live/sessions",
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
];

fn reader(path: &str) -> Box<dyn SessionReader> {
    let (provider, endpoint) = route(&Method::GET, path, CredentialPlace::Bearer).unwrap();
    provider.session(&endpoint, Some("model=m")).unwrap()
}

/// What is not understood is admitted as if it began a turn; what is read of a turn can be believed.
pub fn messages(data: &[u8]) {
    let mut control = Control(data);
    let path = control.choose(&PATHS);
    let mut session = reader(path);
    let mut turn = session.turn();
    for (at, message) in control.0.split(|byte| *byte == b'\n').take(64).enumerate() {
        if at % 2 == 0 {
            // A message that is no UTF-8 ends a websocket; what is passed over in one is not looked at.
            let text = String::from_utf8_lossy(message);
            let is_object = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| value.is_object());
            let asked = reader(path).client(message);
            assert!(asked.turns > 0 || is_object, "{path}");
            session.client(message);
        } else {
            session.server(message);
            turn.look(message);
        }
    }
    let reading = turn.reading();
    assert!(reading.tokens.unwrap_or_default().checked().is_ok());
    assert!(reading.quantities.checked().is_ok());
}
