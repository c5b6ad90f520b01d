//! A connection to a provider that its answer switched to another protocol (101).
//!
//! It is a fresh one, and never goes into the pool.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, StatusCode, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::{Answer, Attempt, Fresh, Outgoing, SendError, Socket, Upstream, own};

/// What became of a request to switch.
pub enum Opened {
    /// The provider switched: this is the head of its answer, and from here on the bytes are the protocol's.
    Switched(response::Parts, Switched),
    /// It answered something else.
    Answered(Box<Answer>),
}

/// The bytes of a connection that was switched.
pub struct Switched {
    socket: Socket,
    /// What came right behind the head.
    ahead: Bytes,
}

impl Upstream {
    /// Sends a request to switch on a connection of its own and waits for the head of the answer.
    pub async fn open(&self, request: Request<Outgoing>) -> Result<Opened, SendError> {
        // HTTP/2 has no such switch.
        let connection = self.in_time(async { own(self.socket(false).await?.0).await }).await?;
        let answer = match self.exchange(Fresh::Own(connection), request).await {
            Ok(answer) => answer,
            Err(Attempt::Unsent(_)) => return Err(SendError::Unreachable),
            Err(Attempt::Failed(error)) => return Err(error),
        };
        if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Opened::Answered(Box::new(answer)));
        }
        let Answer { head, mut body } = answer;
        let mut connection = body.connection.take().ok_or(SendError::Unreachable)?;
        if !connection.closed {
            // The head was all of it for hyper: the next poll lets the socket go.
            let released = poll_fn(|cx| connection.driver.poll_without_shutdown(cx));
            let released = timeout(self.limits.connect, released).await;
            released.map_err(|_| SendError::Timeout)?.map_err(|_| SendError::Unreachable)?;
        }
        let parts = Pin::into_inner(connection.driver).into_parts();
        Ok(Opened::Switched(head, Switched { socket: parts.io.into_inner(), ahead: parts.read_buf }))
    }
}

impl AsyncRead for Switched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let part = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..part).unwrap_or_default());
        self.ahead.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
