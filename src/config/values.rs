//! The kinds of value that configuration has, each parsed from text: durations, sizes, origins, addresses, counts.
//!
//! May use: `http` for URLs. Every error is the end of a sentence that begins with the key's name and says what to
//! write instead. None repeats the value: it may be a secret.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroize;
use secrecy::{SecretBox, SecretString};

use super::guessable;

/// A provider's place: scheme, host and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https` (or `http`, for a simulated provider).
    pub tls: bool,
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// The value of a `Host` header: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == Self::default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether the host is this machine by name or address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "is no origin: write https://host or https://host:port".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| shape())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(shape()),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(
                "has a path or a query: write the origin alone, such as https://host; apps send the path".into()
            );
        }
        let authority = uri.authority().ok_or_else(shape)?;
        if authority.as_str().contains('@') {
            return Err("has a user or password in it: put the key into api_key and write https://host".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Self::default_port(tls),
            Some(rest) => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
                port.filter(|port| *port != 0).ok_or_else(shape)?
            }
            None => return Err(shape()),
        };
        if host.is_empty() { Err(shape()) } else { Ok(Self { tls, host, port }) }
    }
}

/// `10s`, `250ms`, `5m`, `1h` or `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let per_unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == "0" => 0,
        "" if !number.is_empty() => return Err(format!("has no unit: write {number}s or {number}ms")),
        _ => return Err("is no duration: write a number and ms, s, m or h, such as 10s".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "is no duration: write a number and ms, s, m or h, such as 10s".to_owned())?;
    number
        .checked_mul(per_unit_ms)
        .filter(|ms| *ms <= DURATION_MAX_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| "is longer than 30 days: write a shorter one, such as 10s".to_owned())
}

/// Longer is a slip: timers of runtimes are exact to years only.
const DURATION_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// `true` or `false`.
pub fn yes(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is neither true nor false".to_owned())
}

/// `allow`, `refuse` or `auto`, which is `allow` in dev alone: whether it is allowed.
pub fn allowed(text: &str, is_dev: bool) -> Result<bool, String> {
    match text {
        "auto" => Ok(is_dev),
        "allow" => Ok(true),
        "refuse" => Ok(false),
        _ => Err("is none of auto, allow and refuse: write one of them".to_owned()),
    }
}

/// A duration that is not 0.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err("is 0: write a time above 0, such as 10s".into()) } else { Ok(duration) }
}

/// `64MiB`, `1GiB`, `500KB`, `4096` (bytes).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let per_unit: u64 = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("is no size: write a number and KiB, MiB or GiB, such as 64MiB".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "is no size: write a number and KiB, MiB or GiB, such as 64MiB".to_owned())?;
    // Beyond an exabyte nothing is meant; sums of such limits must not overflow.
    number
        .checked_mul(per_unit)
        .filter(|bytes| *bytes <= 1 << 60)
        .ok_or_else(|| "is too large: write a size such as 64MiB".to_owned())
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    (number, unit.trim_start())
}

/// A whole number in a range.
pub fn count(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number: Option<u64> = text.parse().ok();
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("is no whole number from {} to {}: write one", range.start(), range.end()))
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    // The one name that means the same on every machine; others are not looked up, so that a start needs no DNS.
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "is no address: write IP:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

/// A key that can stand in a header: visible ASCII without spaces.
pub fn header_secret(text: &str) -> Result<SecretString, String> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(SecretString::from(text))
    } else {
        Err("has spaces or characters that no key has: copy the key again, without quotes".into())
    }
}

/// The admin key.
pub fn admin_key(text: &str) -> Result<SecretString, String> {
    if text.len() < ADMIN_KEY_CHARS_MIN {
        return Err(format!("has {} characters and needs at least {ADMIN_KEY_CHARS_MIN}: {MAKE_ONE}", text.len()));
    }
    if let Some(why) = guessable::why(text) {
        return Err(format!("{why}: {MAKE_ONE}"));
    }
    header_secret(text)
}

/// More than a rotation ever needs.
const MASTER_KEYS_MAX: usize = 16;

/// 256 bits in hex.
const MASTER_KEY_DIGITS: usize = 64;

/// Master keys: 64 hexadecimal digits each.
pub fn master_keys(text: &str) -> Result<Vec<Arc<SecretBox<[u8; 32]>>>, String> {
    let separates = |c: char| c == ',' || c.is_ascii_whitespace();
    let keys: Vec<&str> = text.split(separates).filter(|key| !key.is_empty()).collect();
    if keys.len() > MASTER_KEYS_MAX {
        return Err(format!("has more than {MASTER_KEYS_MAX} keys: take away those that nothing is encrypted with"));
    }
    // Only the first encrypts. One behind it that is weak has to stay until nothing is encrypted with it any more.
    if let Some(why) = keys.first().filter(|key| key.len() == MASTER_KEY_DIGITS).and_then(|key| guessable::why(key)) {
        return Err(format!(
            "{why}: {MAKE_ONE}, put it in front of this one where keys are encrypted already, and run `tollgate secrets rotate`"
        ));
    }
    keys.into_iter().map(master_key).collect()
}

fn master_key(text: &str) -> Result<Arc<SecretBox<[u8; 32]>>, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let mut digits = digits.filter(|digits| digits.len() == MASTER_KEY_DIGITS).ok_or_else(|| {
        format!("is not made of keys with 64 hexadecimal digits: {MAKE_ONE}, and write commas between several")
    })?;
    let key = SecretBox::init_with_mut(|key: &mut [u8; 32]| {
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | u8::try_from(*digit).unwrap_or(0));
        }
    });
    digits.zeroize();
    Ok(Arc::new(key))
}

const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";

/// 128 bits in hex.
const ADMIN_KEY_CHARS_MIN: usize = 32;

/// A secret as it may be shown: that it is there, and nothing of it.
pub fn masked(secret: &str) -> String {
    // Four characters of a long key help to tell keys apart; of a short one they would be a good part.
    let tail = if secret.len() >= ADMIN_KEY_CHARS_MIN { secret.get(secret.len() - 4..) } else { None };
    format!("********{}", tail.unwrap_or_default())
}

/// A URL as it may be shown: without its user and password.
pub fn masked_url(url: &str) -> String {
    match url.split_once("://") {
        None => masked(url),
        Some(("sqlite", _)) => url.to_owned(),
        // The last `@` of all ends the user part: passwords hold unescaped ones, and slashes, in practice.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://********@{host}"),
            None => url.to_owned(),
        },
    }
}

/// The URL of a key that is no secret, as it may be shown: whoever wrote a user and a password into it, or a key, has them
/// there by mistake. What is no URL may be a password as a whole.
pub fn public_url(url: &str) -> String {
    // What is no port behind a colon may be a password whose host was forgotten.
    let is_plain = |text: &str| {
        let authority = text.split('/').next().unwrap_or(text);
        let port = if authority.ends_with(']') { "" } else { authority.rsplit_once(':').map_or("", |(_, port)| port) };
        !text.contains(['@', '?', '#', '%']) && port.bytes().all(|b| b.is_ascii_digit())
    };
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => match rest.rsplit_once('@') {
            _ if is_plain(rest) => url.to_owned(),
            Some((user, host)) if is_plain(host) && !user.contains(['?', '#']) => format!("{scheme}://********@{host}"),
            _ => format!("{scheme}://********"),
        },
        _ => masked(""),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [("10s", 10_000), ("250ms", 250), ("5m", 300_000), ("1h", 3_600_000), ("0", 0), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "10 sec", "99999999999999999999s", "721h", "1d", "１s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("10"), Err("has no unit: write 10s or 10ms".into()));
        assert!(positive_duration("0").is_err());
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        for (text, expected) in
            [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("512 KiB", 512 << 10), ("1MB", 1_000_000), ("7", 7), ("0", 0)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "MiB", "64mib", "1.5GiB", "-1", "99999999999GiB", "64M"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, shown, host, port) in [
            ("https://api.openai.com", "https://api.openai.com", "api.openai.com", 443),
            ("https://API.example.com/", "https://api.example.com", "api.example.com", 443),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "127.0.0.1", 9000),
            ("http://[::1]:80", "http://[::1]", "::1", 80),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.to_string().as_str(), origin.host.as_str(), origin.port), (shown, host, port));
            assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin);
        }
        for bad in [
            "",
            "api.openai.com",
            "https://",
            "https://api.openai.com/v1",
            "https://h?x=1",
            "https://h#f",
            "https://user:pw@h",
            "ftp://h",
            "https://h:0",
            "https://h:99999",
            "https://h:",
            "https://a b",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_numeric_or_localhost() {
        assert_eq!(address("localhost:0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(address("[::1]:8080").unwrap().port(), 8080);
        for bad in ["8080", ":8080", "127.0.0.1", "example.com:80", "127.0.0.1:65536"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_of_a_short_secret_is_shown() {
        assert_eq!(masked("hunter2"), "********");
        assert_eq!(masked("sk-proj-0123456789012345678901234wxyz"), "********wxyz");
        assert_eq!(masked_url("postgres://u:p@ss@db/x"), "postgres://********@db/x");
        assert_eq!(masked_url("postgres://u:p/s@db/x?sslmode=require"), "postgres://********@db/x?sslmode=require");
        assert_eq!(masked_url("sqlite://data/a@b.db"), "sqlite://data/a@b.db");
    }

    #[test]
    fn a_short_admin_key_is_refused_without_repeating_it() {
        let error = admin_key("hunter2hunter2").unwrap_err();
        assert!(error.contains("14 characters") && !error.contains("hunter2"), "{error}");
        let good = "7c9e1f0ab35d48261e6f90c2d4a8b375";
        assert!(admin_key(good).is_ok());
        assert!(admin_key(good.trim_start_matches('7')).is_err());
        assert!(admin_key(&good.replace('7', " ")).is_err());
    }

    #[test]
    fn master_keys_are_hexadecimal_and_several() {
        let (one, two) = (
            "7c9e1f0ab35d48261e6f90c2d4a8b3757c9e1f0ab35d48261e6f90c2d4a8b375",
            "0F".repeat(16) + "12345678901234567890123456789012",
        );
        let bytes = |text: &str| {
            master_keys(text).map(|keys| keys.iter().map(|key| key.expose_secret()[..2].to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(bytes(one), Ok(vec![vec![0x7c, 0x9e]]));
        // A weak one is taken away only once another encrypts in its place.
        assert_eq!(
            bytes(&format!("{one},{}", "0123456789abcdef".repeat(4))),
            Ok(vec![vec![0x7c, 0x9e], vec![0x01, 0x23]])
        );
        for text in [format!("{two},{one}"), format!("{two}\n{one}\n"), format!(" {two} , {one}")] {
            assert_eq!(bytes(&text), Ok(vec![vec![0x0f, 0x0f], vec![0x7c, 0x9e]]), "{text:?}");
        }
        for bad in [
            one.trim_start_matches('7'),
            "not a key",
            &format!("{one}{one}"),
            &"a".repeat(64),
            &"0123456789abcdef".repeat(4),
            &format!("{}\n{one}", "a".repeat(64)),
            &one.replace('7', "g"),
            &vec![one; 17].join(","),
        ] {
            let error = bytes(bad).unwrap_err();
            assert!(!error.contains(bad) && error.contains(|c: char| c.is_ascii_alphabetic()), "{error}");
        }
    }

    #[test]
    fn an_admin_key_that_somebody_guesses_is_refused() {
        for weak in [
            "k".repeat(64),
            "0".repeat(32),
            "abcab".repeat(10),
            "change-me-change-me-change-me-2026".to_owned(),
            "CHANGE_THIS_to_a_long_random_value".to_owned(),
            "<your-admin-key-of-32-characters-or-more>".to_owned(),
            "P@ssword-password-password-password".to_owned(),
            "0123456789abcdef0123456789abcdef".to_owned(),
            "abcdefghijklmnopqrstuvwxyz012345".to_owned(),
        ] {
            let error = admin_key(&weak).unwrap_err();
            assert!(error.contains("openssl rand") && !error.contains(&weak) && !error.contains('\n'), "{error}");
        }
        for good in ["9f86d081884c7d659a2feaa0c55ad015", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi"] {
            assert!(admin_key(good).is_ok(), "{good}");
        }
    }
}
