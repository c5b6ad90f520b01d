//! A look at answers that nobody pays for themselves: whether they tell that something is over which is billed then.
//!
//! The client has its bytes as they come; what they said is handed over behind them.

use std::sync::Arc;

use http::{header, response};

use crate::domain::ids::ProviderId;
use crate::metering::deferred::Deferred;
use crate::providers::{AnswerReader, Endpoint, Kind, Provider};

/// Looks at one answer. What it said is told when this is dropped.
pub(super) struct Watch {
    reader: Box<dyn AnswerReader>,
    provider: ProviderId,
    deferred: Arc<Deferred>,
}

impl Watch {
    /// One for the answer with this head, if its endpoint tells of units.
    pub(super) fn of(
        deferred: &Arc<Deferred>,
        provider: &'static dyn Provider,
        endpoint: &Endpoint,
        head: &response::Parts,
    ) -> Option<Self> {
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_told = endpoint.kind == Kind::Unbilled && head.status == http::StatusCode::OK;
        let reader = is_told.then(|| provider.unit_reader(endpoint.reads, content_type)).flatten()?;
        Some(Self { reader, provider: provider.id(), deferred: deferred.clone() })
    }

    /// Looks at the next decoded bytes.
    pub(super) fn look(&mut self, decoded: &[u8]) {
        self.reader.look(decoded);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.deferred.told(self.provider.clone(), self.reader.reading());
    }
}
