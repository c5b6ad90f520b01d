//! Where Redis is, as one checked address.
//!
//! `redis://[user[:password]@]host[:port][,host[:port]…][/database]`, with `rediss` for TLS and `+cluster` for a cluster.

use std::fmt;
use std::str::FromStr;

/// The port of a host that names none.
const PORT: u16 = 6_379;

/// Hosts in one address: more than any cluster needs to be found.
const HOSTS_MAX: usize = 64;

/// One host of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisHost {
    /// A name or an address; IPv6 without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// A checked address. What it prints has no user and no password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    hosts: Vec<RedisHost>,
    is_tls: bool,
    is_cluster: bool,
    user: Option<String>,
    password: Option<String>,
    database: u16,
}

/// Why a text is no address of Redis. Never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// Another scheme.
    #[error("begins with redis://, rediss://, redis+cluster:// or rediss+cluster://")]
    Scheme,
    /// No host, too many, or one that is none.
    #[error("names at least one host, as in redis://10.0.0.5:6379 or redis://a:6379,b:6379")]
    Host,
    /// Not 1 to 65535.
    #[error("has a port between 1 and 65535 behind each ':' of a host")]
    Port,
    /// A user without a password, or characters that are not percent-encoded.
    #[error(
        "has user:password@ or :password@ before the hosts, with other characters than letters and digits as %40 and the like"
    )]
    Login,
    /// Not a small number.
    #[error("ends with /0 to /15 or another number of a database, or with nothing")]
    Database,
    /// A cluster has one database.
    #[error("names no database when it is a cluster: it has only one")]
    ClusterDatabase,
    /// Options are not known.
    #[error("has no '?' and no '#'")]
    Options,
}

impl RedisUrl {
    /// Where to look: the members of a cluster, or servers of which one is the master. At least one.
    pub fn hosts(&self) -> &[RedisHost] {
        &self.hosts
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether the hosts are a cluster.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Who logs in, if not the default user.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password. Never to be shown.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The number of the database.
    pub fn database(&self) -> u16 {
        self.database
    }

    fn scheme(&self) -> &'static str {
        match (self.is_tls, self.is_cluster) {
            (false, false) => "redis",
            (true, false) => "rediss",
            (false, true) => "redis+cluster",
            (true, true) => "rediss+cluster",
        }
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (is_tls, is_cluster) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+cluster" => (false, true),
            "rediss+cluster" => (true, true),
            _ => return Err(RedisUrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Options);
        }
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').ok_or(RedisUrlError::Login)?;
                let user = Some(decoded(user)?).filter(|user| !user.is_empty());
                (user, Some(decoded(password)?).filter(|password| !password.is_empty()))
            }
        };
        if user.is_some() && password.is_none() {
            return Err(RedisUrlError::Login);
        }
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| RedisUrlError::Database)?,
        };
        if is_cluster && database != 0 {
            return Err(RedisUrlError::ClusterDatabase);
        }
        let hosts = hosts.split(',').map(str::parse).collect::<Result<Vec<RedisHost>, _>>()?;
        if hosts.len() > HOSTS_MAX {
            return Err(RedisUrlError::Host);
        }
        Ok(Self { hosts, is_tls, is_cluster, user, password, database })
    }
}

impl FromStr for RedisHost {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let (name, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (name, port) = bracketed.split_once(']').ok_or(RedisUrlError::Host)?;
                let is_address =
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
                if !is_address {
                    return Err(RedisUrlError::Host);
                }
                (name, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(RedisUrlError::Host)?) })
            }
            None => {
                let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
                let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                if name.is_empty() || !name.bytes().all(is_name) {
                    return Err(RedisUrlError::Host);
                }
                (name, port)
            }
        };
        let port = port.map_or(Ok(PORT), str::parse).ok().filter(|&port| port > 0).ok_or(RedisUrlError::Port)?;
        Ok(Self { name: name.to_owned(), port })
    }
}

/// Percent-decoding (RFC 3986, 2.1).
fn decoded(text: &str) -> Result<String, RedisUrlError> {
    let mut bytes = text.bytes();
    let mut found = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        found.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or(RedisUrlError::Login)?;
                u8::try_from(high * 16 + low).map_err(|_| RedisUrlError::Login)?
            }
            b'/' | b'@' | b':' | b',' | b' ' => return Err(RedisUrlError::Login),
            other => other,
        });
    }
    String::from_utf8(found).map_err(|_| RedisUrlError::Login)
}

impl fmt::Display for RedisHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { "" } else { "," })?;
        }
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisUrl, RedisUrlError> {
        text.parse()
    }

    #[test]
    fn an_address_says_hosts_login_database_tls_and_cluster() {
        let url = parse("rediss://bill:p%40ss%3A%2F@a.example,10.0.0.5:7000,[::1]:7001/3").unwrap();
        assert_eq!(url.to_string(), "rediss://a.example:6379,10.0.0.5:7000,[::1]:7001/3");
        assert_eq!((url.user(), url.password()), (Some("bill"), Some("p@ss:/")));
        assert_eq!((url.is_tls(), url.is_cluster(), url.database(), url.hosts().len()), (true, false, 3, 3));
        let url = parse("redis+cluster://:secret@a:1,b:2").unwrap();
        assert_eq!((url.user(), url.password()), (None, Some("secret")));
        assert_eq!(
            (url.is_tls(), url.is_cluster(), url.to_string().as_str()),
            (false, true, "redis+cluster://a:1,b:2")
        );
        assert_eq!(parse("redis://localhost").unwrap().to_string(), "redis://localhost:6379");
        assert_eq!(parse("redis://[::1]").unwrap().hosts()[0], RedisHost { name: "::1".into(), port: 6379 });
    }

    #[test]
    fn what_is_no_address_is_refused_by_what_is_wrong() {
        for (text, error) in [
            ("10.0.0.5:6379", RedisUrlError::Scheme),
            ("http://a", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Host),
            ("redis://a,,b", RedisUrlError::Host),
            ("redis://a b", RedisUrlError::Host),
            ("redis://[::1", RedisUrlError::Host),
            ("redis://a:0", RedisUrlError::Port),
            ("redis://a:x", RedisUrlError::Port),
            ("redis://a:65536", RedisUrlError::Port),
            ("redis://secret@a", RedisUrlError::Login),
            ("redis://user:@a", RedisUrlError::Login),
            ("redis://:p@ss@a", RedisUrlError::Login),
            ("redis://:p%4@a", RedisUrlError::Login),
            ("redis://a/x", RedisUrlError::Database),
            ("redis+cluster://a/1", RedisUrlError::ClusterDatabase),
            ("redis://a?db=1", RedisUrlError::Options),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = parse("redis://user:hunter2@a").unwrap();
        for shown in [format!("{url}"), format!("{url:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("user"), "{shown}");
        }
    }
}
