//! What the gateway says about itself: log lines, one line a request, and metrics.
//!
//! May use: `domain`, `ports` (metrics and the request log are sinks). Nothing here ever sees a prompt, a
//! completion or a key.

mod lines;
pub mod logging;
pub mod metrics;
pub mod request_log;
