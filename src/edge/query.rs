//! The query of a request: the keys in it, and what of it goes to the provider.
//!
//! Pure: text in, text out.

use std::borrow::Cow;

use crate::domain::key;

/// Parameters of a query that are never passed on, also with `$` before them: the system parameters of Google's APIs
/// (cloud.google.com/apis/docs/system-parameters) that do what the headers do that are never passed on.
const QUERY_NOT_TO_PROVIDER: [&str; 7] =
    ["key", "access_token", "oauth_token", "bearer_token", "userProject", "httpMethod", "httpHeaders"];

/// The query without what only the gateway says to a provider, however its name is written: a key or another credential, an
/// account, and parameters by which Google's servers take another method and other headers than those of the request. And
/// without what has a key of ours in it, whatever its name. `None` when nothing is left.
pub fn query_to_provider(query: &str) -> Option<String> {
    let kept: Vec<&str> = query.split('&').filter(|pair| !stays_here(pair)).collect();
    let joined = kept.join("&");
    (!joined.is_empty()).then_some(joined)
}

/// The values of all `key` parameters, percent-decoded.
pub fn keys_in_query(query: &str) -> impl Iterator<Item = String> {
    let value = |pair: &str| percent_decoded(pair.split_once('=').map_or("", |(_, value)| value));
    query.split('&').filter(|pair| is_key(pair)).map(value)
}

fn is_key(pair: &str) -> bool {
    name_of(pair) == "key"
}

fn stays_here(pair: &str) -> bool {
    let name = name_of(pair);
    QUERY_NOT_TO_PROVIDER.contains(&name.strip_prefix('$').unwrap_or(&name))
        || key::is_in(pair)
        || (pair.contains('%') && key::is_in(&percent_decoded(pair)))
}

fn name_of(pair: &str) -> Cow<'_, str> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    if name.contains('%') { percent_decoded(name).into() } else { name.into() }
}

/// Undoes percent-encoding; what is no valid encoding stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let decoded = (*byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            // from_str_radix takes a sign as well.
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(*byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_no_digit_of_an_encoding() {
        // Found by the fuzz target of credentials.
        for (text, decoded) in [("%6b", "k"), ("%6B%65y", "key"), ("%+b", "%+b"), ("%-1%2", "%-1%2"), ("%%6b", "%k")] {
            assert_eq!(percent_decoded(text), decoded, "{text}");
        }
    }

    #[test]
    fn the_key_is_found_and_removed_however_it_is_written() {
        for (query, key, rest) in [
            ("key=a%2Fb&alt=sse", Some("a/b"), Some("alt=sse")),
            ("alt=sse&%6bey=x", Some("x"), Some("alt=sse")),
            ("key=x", Some("x"), None),
            ("keys=1&monkey=2", None, Some("keys=1&monkey=2")),
            ("key", Some(""), None),
            ("$key=x&a=b", None, Some("a=b")),
            ("a=b&%24http%48eaders=x&$httpMethod=POST&access_token=x", None, Some("a=b")),
        ] {
            assert_eq!(keys_in_query(query).next().as_deref(), key, "{query}");
            assert_eq!(query_to_provider(query).as_deref(), rest, "{query}");
        }
        let ours = key::mint([7; 32]);
        for (query, rest) in [
            (format!("key={ours}&a=1&api_key={ours}"), Some("a=1")),
            (format!("a=x{ours}y"), None),
            (format!("{ours}&%61={}", ours.replace('_', "%5f")), None),
            ("a=tg_live_x".to_owned(), Some("a=tg_live_x")),
        ] {
            assert_eq!(query_to_provider(&query).as_deref(), rest, "{query}");
        }
    }
}
