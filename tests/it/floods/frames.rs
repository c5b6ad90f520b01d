//! Frames of HTTP/2 by hand (RFC 9113): no client library sends what a flood is made of.

use super::*;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Header fields as they are, none of them in a table (RFC 7541, 6.2.2).
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a length of more than one byte");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The fields of a request; a key is given where it has one.
pub fn request(method: &str, path: &str, key: Option<&str>) -> Vec<u8> {
    let mut block =
        fields(&[(":method", method), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)]);
    if let Some(key) = key {
        block.extend_from_slice(&fields(&[("authorization", &format!("Bearer {key}"))]));
    }
    block
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The reason that its GOAWAY gave, if one came.
    pub reason: Option<u32>,
    /// From its begin.
    pub after: Duration,
    /// How many rounds of the flood were sent.
    pub rounds: u32,
}

/// Sends the preface and `begin`, then `round` after `round` as fast as it can, a hundred of them at once, until the
/// gateway has closed the connection or `limit` is over.
pub async fn storm(to: SocketAddr, begin: Vec<u8>, round: impl Fn(u32) -> Vec<u8>, limit: Duration) -> Option<End> {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    let began = Instant::now();
    let (mut read, mut write) = tcp.split();
    let mut rounds = 0;
    let mut reason = None;
    let send = async {
        let first = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &begin].concat();
        let mut sent = write.write_all(&first).await;
        while sent.is_ok() {
            let batch: Vec<u8> = (rounds..rounds + 100).flat_map(&round).collect();
            sent = write.write_all(&batch).await;
            rounds += 100;
        }
        std::future::pending::<()>().await;
    };
    let hear = async {
        while let Some((kind, payload)) = next_frame(&mut read).await {
            if kind == GOAWAY {
                reason = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
            }
        }
    };
    let both = async {
        tokio::select! {
            () = send => {}
            () = hear => {}
        }
    };
    timeout(limit, both).await.ok()?;
    Some(End { reason, after: began.elapsed(), rounds })
}

/// The next frame that the gateway sends: its kind and payload. `None` when it has closed.
pub async fn next_frame(read: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    read.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}
