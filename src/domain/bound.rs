//! What a client has met that is bounded: the label of the metric that counts it.
//!
//! May use: nothing.

/// One bound towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Connections of all clients together.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// Requests of one tenant at once.
    RequestsPerTenant,
    /// Wrong credentials of one address.
    FailedKeys,
    /// The bytes or the number of the headers of a request.
    Head,
    /// The time for the head of a request, the handshake of TLS included.
    HeadTime,
    /// How long a connection may have no request.
    Idle,
    /// The bytes of a request's body.
    Body,
    /// All request bodies in memory together.
    Buffers,
    /// How long a request body may be silent, or how slow it may be.
    BodyPace,
    /// The time from the head of a request to the end of its body.
    RequestTime,
    /// How long a client may take nothing of its answer, or how slowly.
    AnswerPace,
    /// How long an answer or a session may last.
    StreamTime,
    /// Frames of a connection of HTTP/2 that ask for nothing.
    Http2Frames,
    /// Requests of a connection of HTTP/2 that it reset, or that were malformed or one too many.
    Http2Resets,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::RequestsPerTenant,
        Self::FailedKeys,
        Self::Head,
        Self::HeadTime,
        Self::Idle,
        Self::Body,
        Self::Buffers,
        Self::BodyPace,
        Self::RequestTime,
        Self::AnswerPace,
        Self::StreamTime,
        Self::Http2Frames,
        Self::Http2Resets,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::RequestsPerTenant => "requests_per_tenant",
            Self::FailedKeys => "failed_keys",
            Self::Head => "head",
            Self::HeadTime => "head_time",
            Self::Idle => "idle",
            Self::Body => "body",
            Self::Buffers => "buffers",
            Self::BodyPace => "body_pace",
            Self::RequestTime => "request_time",
            Self::AnswerPace => "answer_pace",
            Self::StreamTime => "stream_time",
            Self::Http2Frames => "http2_frames",
            Self::Http2Resets => "http2_resets",
        }
    }
}
