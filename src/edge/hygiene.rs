//! What of a request is ambiguous or malformed: refused before anything else looks at it, with the connection closed, since
//! nobody can say where the next request begins.
//!
//! May use: `domain`. Pure: bytes in, a verdict out. pingora's parser is made to take what it can make sense of (it
//! percent-encodes a NUL in a target, ends lines at a bare LF, reads heads up to 1 MiB and an empty chunk size as 0), so it
//! never meets such bytes: [`Head`] reads a head as it comes, before that parser does, and [`chunks`] the framing of a body
//! below it. `client_stream` shows them every byte. A request passes if every parser has to read it the same way, which is
//! narrower than RFC 9112 asks for; what clients really send is in the tests beside the refusals.

use http::Method;
use http::header::{self, HeaderMap};

use crate::domain::refusal::Refusal;

pub mod chunks;

/// A target is no longer than this. RFC 9112, 3, asks for 8,000 bytes at least.
const TARGET_BYTES_MAX: usize = 16 * 1024;

/// The longest method of ours has six letters.
const METHOD_BYTES_MAX: usize = 32;

/// RFC 9112, 2.2: a client may end its last request with a line too many.
const EMPTY_LINES_MAX: u32 = 2;

/// For an `Allow` header: the methods that some route has.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its bytes, to the end of the empty line.
    pub head_bytes: usize,
    /// Its headers. pingora takes 256 at most.
    pub headers: usize,
}

impl Default for Limits {
    /// nginx takes 32 KiB, Apache 100 headers: clients put tokens and traces there, no documents.
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, headers: 128 }
    }
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A head that can be read in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Where it begins, behind empty lines.
    pub begins: usize,
    /// Where the body begins.
    pub ends: usize,
    /// How the body is framed.
    pub body: Framing,
    /// It asks for another protocol.
    pub upgrades: bool,
    /// Where in the target stand a scheme and a host, which is that of `Host`: from, to. A path or a query may follow.
    pub origin: Option<(usize, usize)>,
}

/// Reads a head as it comes: each line once, when it is there.
#[derive(Debug, Default)]
pub struct Head {
    limits: Limits,
    /// Where the line begins that is not whole yet.
    line: usize,
    /// Up to where it was looked for its end.
    looked: usize,
    begins: usize,
    empty_lines: u32,
    is_http_1_0: bool,
    has_request_line: bool,
    headers: usize,
    hosts: u32,
    content_types: u32,
    lengths: u32,
    length: u64,
    codings: u32,
    upgrades: bool,
    origin: Option<Origin>,
}

/// What stands before the path in a target of absolute form, as places in the head.
#[derive(Debug, Clone, Copy)]
struct Origin {
    begins: usize,
    host: usize,
    ends: usize,
    /// What need not be said.
    port: &'static [u8],
}

impl Head {
    /// One that may be so large.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Reads on. `raw` begins where it began the time before and is that or longer; `None` while the head is not over.
    pub fn look(&mut self, raw: &[u8]) -> Result<Option<Whole>, Refusal> {
        while let Some(at) = raw.get(self.looked..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.looked + at;
            let line = raw.get(self.line..end).unwrap_or_default();
            // RFC 9112, 2.2, lets a recipient take a bare LF. Who does and who does not see other lines.
            let line = line.strip_suffix(b"\r").ok_or(bad("a line that does not end in CRLF"))?;
            let begins = self.line;
            (self.line, self.looked) = (end + 1, end + 1);
            if self.line > self.limits.head_bytes {
                return Err(Refusal::HeadTooLarge);
            }
            match (self.has_request_line, line.is_empty()) {
                (true, false) => self.header(line, raw)?,
                (false, false) => self.request_line(line, begins)?,
                (true, true) => return self.whole().map(Some),
                (false, true) => self.empty_line()?,
            }
        }
        self.looked = raw.len();
        let begun = raw.get(self.line..).unwrap_or_default();
        if !self.has_request_line {
            if begun.first().is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r') {
                return Err(bad("no HTTP"));
            }
            if begun.len() > TARGET_BYTES_MAX + METHOD_BYTES_MAX {
                return Err(Refusal::TargetTooLong);
            }
        }
        if raw.len() > self.limits.head_bytes { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }

    fn empty_line(&mut self) -> Result<(), Refusal> {
        self.empty_lines += 1;
        self.begins = self.line;
        if self.empty_lines > EMPTY_LINES_MAX { Err(bad("empty lines and no request")) } else { Ok(()) }
    }

    /// RFC 9112, 3: method, one space, target, one space, version.
    fn request_line(&mut self, line: &[u8], begins: usize) -> Result<(), Refusal> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if !is_token(method) || method.len() > METHOD_BYTES_MAX {
            return Err(bad("a method that is no word"));
        }
        let target = target.filter(|target| !target.is_empty()).ok_or(bad("no request target"))?;
        match (version, parts.next()) {
            (Some(b"HTTP/1.1"), None) => {}
            (Some(b"HTTP/1.0"), None) => self.is_http_1_0 = true,
            // HTTP/0.9 has no version and no headers.
            (None, _) => return Err(Refusal::VersionNotSupported),
            (Some(version), None) if is_version(version) => return Err(Refusal::VersionNotSupported),
            _ => return Err(bad("a request line that is not method, target and HTTP/1.1")),
        }
        if matches!(method, b"TRACE" | b"CONNECT") {
            return Err(no_such_method());
        }
        self.has_request_line = true;
        let begins = begins + method.len() + 1;
        self.origin = check_target(target)?.map(|Absolute { scheme, ends, port }| Origin {
            begins,
            host: begins + scheme,
            ends: begins + ends,
            port,
        });
        Ok(())
    }

    fn header(&mut self, line: &[u8], raw: &[u8]) -> Result<(), Refusal> {
        self.headers += 1;
        if self.headers > self.limits.headers {
            return Err(Refusal::HeadTooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(bad("a header line without a colon"))?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default();
        if !is_token(name) {
            // A folded line, a space before the colon, no name.
            return Err(bad("a header line that does not begin with a name and a colon"));
        }
        if has_control(value) {
            return Err(bad("a control character in a header"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                let host = trimmed(value);
                if !is_host(host) {
                    return Err(bad("a Host that is no host"));
                }
                // RFC 9112, 3.2.2, has the target decide. Whoever is in front of this may have gone by the other.
                if self.origin.is_some_and(|origin| !origin.is_at(host, raw)) {
                    return Err(bad("a request target that names another host than Host"));
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
            10 if name.eq_ignore_ascii_case(b"connection") => connection(value)?,
            12 if name.eq_ignore_ascii_case(b"content-type") => self.content_types += 1,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.lengths += 1;
                self.length = length(trimmed(value))?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.codings += 1;
                coding(trimmed(value))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn whole(&self) -> Result<Whole, Refusal> {
        match (self.lengths, self.codings, self.hosts) {
            (2.., _, _) | (_, 2.., _) => return Err(bad("more than one Content-Length or Transfer-Encoding")),
            (1, 1, _) => return Err(bad("both Content-Length and Transfer-Encoding")),
            // RFC 9112, 6.1: its framing is faulty, whatever it means.
            (_, 1, _) if self.is_http_1_0 => return Err(bad("a Transfer-Encoding in HTTP/1.0")),
            (_, _, 2..) => return Err(bad("more than one Host")),
            // RFC 9112, 3.2: every HTTP/1.1 request has one.
            (_, _, 0) if !self.is_http_1_0 => return Err(bad("no Host")),
            _ => {}
        }
        if self.content_types > 1 {
            return Err(bad("more than one Content-Type"));
        }
        let body = if self.codings > 0 { Framing::Chunked } else { Framing::Length(self.length) };
        let origin = self.origin.map(|origin| (origin.begins, origin.ends));
        Ok(Whole { begins: self.begins, ends: self.line, body, upgrades: self.upgrades, origin })
    }
}

impl Origin {
    /// Whether `host` is the same in other letters, or with a port that need not be said.
    fn is_at(&self, host: &[u8], raw: &[u8]) -> bool {
        let plain = |host: &'_ [u8]| host.strip_suffix(self.port).or(host.strip_suffix(b":")).unwrap_or(host).len();
        let named = raw.get(self.host..self.ends).unwrap_or_default();
        let (named, host) = (named.get(..plain(named)), host.get(..plain(host)));
        named.zip(host).is_some_and(|(named, host)| named.eq_ignore_ascii_case(host))
    }
}

/// The same for a head of HTTP/2. What is malformed in itself the codec has refused: this is what becomes ambiguous when it
/// is passed on in HTTP/1.1.
pub fn check_http2(method: &Method, target: &str, headers: &HeaderMap, limits: Limits) -> Result<(), Refusal> {
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(no_such_method());
    }
    if !target.starts_with('/') {
        return Err(bad("a request target that is no path"));
    }
    check_target(target.as_bytes()).map(drop)?;
    let of_a_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if of_a_connection.iter().any(|name| headers.contains_key(*name)) {
        return Err(bad("a header of a connection of HTTP/1.1"));
    }
    if headers.len() > limits.headers {
        return Err(Refusal::HeadTooLarge);
    }
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
        if headers.get_all(name).iter().count() > 1 {
            return Err(bad("more than one Content-Length or Content-Type"));
        }
    }
    headers.get(header::CONTENT_LENGTH).map_or(Ok(()), |value| self::length(value.as_bytes()).map(drop))
}

fn bad(reason: &'static str) -> Refusal {
    Refusal::BadRequest { reason }
}

fn no_such_method() -> Refusal {
    Refusal::MethodNotAllowed { allow: METHODS.to_owned() }
}

/// An absolute form: how long its scheme is, where its host ends, and which port is meant where it has none.
struct Absolute {
    scheme: usize,
    ends: usize,
    port: &'static [u8],
}

/// An origin form, or an absolute form of HTTP. Nothing that anybody cuts off, escapes or reads as a separator.
fn check_target(target: &[u8]) -> Result<Option<Absolute>, Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    if !target.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\')) {
        return Err(bad("a character in the request target that is not allowed there"));
    }
    if target.first() == Some(&b'/') {
        return Ok(None);
    }
    let absolute = [(&b"http://"[..], &b":80"[..]), (b"https://", b":443")].into_iter().find_map(|(scheme, port)| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        let host = rest.split(|byte| matches!(byte, b'/' | b'?')).next().filter(|host| is_host(host))?;
        let absolute = Absolute { scheme: scheme.len(), ends: scheme.len() + host.len(), port };
        begin.eq_ignore_ascii_case(scheme).then_some(absolute)
    });
    absolute.map(Some).ok_or(bad("a request target that is no path"))
}

/// RFC 9110, 8.6: digits and nothing else. A list of equal values is valid, and a way to smuggle.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    let add = |length: Option<u64>, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        length?.checked_mul(10)?.checked_add(u64::from(digit))
    };
    let length = if value.is_empty() { None } else { value.iter().fold(Some(0), add) };
    length.ok_or(bad("a Content-Length that is no number"))
}

/// `chunked` and nothing else. RFC 9112, 6.1: 501 for codings that are not known, such as `gzip, chunked`.
fn coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let names_codings = value.split(|byte| *byte == b',').all(|name| is_token(trimmed(name)));
    Err(if names_codings { Refusal::CodingNotSupported } else { bad("a Transfer-Encoding that is no name") })
}

/// A list of options, which are names of headers that end here.
fn connection(value: &[u8]) -> Result<(), Refusal> {
    let takes_away = value.split(|byte| *byte == b',').any(|name| says_what_a_message_is(trimmed(name)));
    if takes_away { Err(bad("a Connection that names a header of the message")) } else { Ok(()) }
}

/// Headers by which a request is judged here and read where it goes: one that `Connection` takes away on the way would be
/// judged as another than goes on. What else is named there is either the gateway's own on the way on, or nobody's here.
fn says_what_a_message_is(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let is_length = name.eq_ignore_ascii_case(b"content-length");
    (begins(b"content-") && !is_length) || begins(b"x-goog-upload-")
}

/// A name or an address and perhaps a port; nothing of a URI around it.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => match memchr::memchr(b']', rest).and_then(|end| rest.split_at_checked(end)) {
            Some((address, rest)) if address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)) => {
                (address, rest.strip_prefix(b"]").unwrap_or(rest))
            }
            _ => return false,
        },
        None => {
            let (name, port) = host.split_at(memchr::memchr(b':', host).unwrap_or(host.len()));
            if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte)) {
                return false;
            }
            (name, port)
        }
    };
    let is_port = match port.split_first() {
        None => true,
        Some((colon, digits)) => *colon == b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
    };
    !name.is_empty() && is_port
}

/// `HTTP/`, digits, a dot, digits: a version, if not one that is served.
fn is_version(word: &[u8]) -> bool {
    let Some(number) = word.strip_prefix(b"HTTP/") else { return false };
    let mut parts = number.split(|byte| *byte == b'.');
    let mut is_number = || parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number() && is_number() && parts.next().is_none()
}

/// A field value without the spaces and tabs around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110, 5.6.2: what names are made of.
fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^'..=b'`' | b'|' | b'~'
    )
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a value holds a control character other than a tab: also a bare CR, a NUL, a DEL. Looks at all of it, which is
/// quicker than stopping early, since eight or sixteen bytes are looked at together.
fn has_control(value: &[u8]) -> bool {
    value.iter().fold(false, |found, byte| found | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
}

#[cfg(test)]
mod tests;
