//! The providers: where they are, with which key, over which TLS.
//!
//! May use: everything. Certificates are verified always: by the roots of the system, those that the operator adds, or the
//! operator's alone.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ring::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{self, Config, Providers, Roots};
use crate::domain::ids::ProviderId;
use crate::edge::exchange::Origin;
use crate::edge::upstream::{Failures, Limits, Place, Upstream};

use super::BootError;
use super::tls::{certificates, wrong};

/// A pooled connection to a provider is not used after this: both close theirs after about a minute.
const POOLED: Duration = Duration::from_secs(50);

const CA: (&str, &str) = ("upstream.ca", "TOLLGATE_UPSTREAM_CA");

/// The operator's own roots, read.
pub(super) struct Trust {
    roots: Vec<CertificateDer<'static>>,
    only: bool,
    /// Stands for both: a place that is verified by others is another place.
    digest: [u8; 32],
}

/// Every provider; one without a key of the operator's serves tenants that have their own. A place that is among those of `before` is taken from there, with its connections.
pub(super) fn of(config: &Config, before: &[Origin]) -> Result<Vec<Origin>, BootError> {
    let Providers { openai, gemini, vertex } = &config.providers;
    let wanted = [
        ("openai", false, &openai.api_key, &openai.origin),
        ("gemini", false, &gemini.api_key, &gemini.origin),
        ("gemini", true, &gemini.api_key, vertex),
    ];
    let (limits, http2) = (limits(config), config.upstream.http2);
    let trust = trust(&config.upstream.roots)?;
    let mut origins: Vec<Origin> = Vec::new();
    let mut tls = None;
    for (name, vertex, key, wanted) in wanted {
        let known = before
            .iter()
            .chain(&origins)
            .map(|origin| &origin.upstream.place)
            .find(|place| is_at(place, wanted, http2) && place.trust == trust.digest);
        let place = match known {
            Some(place) => place.clone(),
            None => match place(wanted, http2, &trust, &mut tls) {
                Ok(place) => Arc::new(place),
                // A machine without roots may still serve the providers that it has keys of, in the clear.
                Err(BootError::Roots) if key.is_none() => continue,
                Err(error) => return Err(error),
            },
        };
        origins.push(Origin {
            provider: ProviderId::new(name),
            vertex,
            upstream: Upstream { place, limits },
            key: key.clone(),
        });
    }
    Ok(origins)
}

fn is_at(place: &Place, wanted: &config::Origin, http2: bool) -> bool {
    let is_way = place.tls.is_some() == wanted.tls && place.http2 == http2;
    place.host == wanted.host && place.port == wanted.port && is_way
}

/// A new place. `tls` is set up by the first that needs it and shared by the others.
fn place(
    wanted: &config::Origin,
    http2: bool,
    trust: &Trust,
    tls: &mut Option<Arc<ClientConfig>>,
) -> Result<Place, BootError> {
    let wrong = || BootError::HostName(wanted.host.clone());
    let tls = if wanted.tls {
        let name = ServerName::try_from(wanted.host.clone()).map_err(|_| wrong())?;
        let config = match tls {
            Some(config) => config.clone(),
            None => tls.insert(client_tls(http2, trust)?).clone(),
        };
        Some((config, name))
    } else {
        None
    };
    let authority = HeaderValue::from_str(&wanted.authority()).map_err(|_| wrong())?;
    let (host, port, trust) = (wanted.host.clone(), wanted.port, trust.digest);
    Ok(Place { host, port, authority, tls, http2, trust, failures: Failures::default() })
}

fn limits(config: &Config) -> Limits {
    let config::Upstream { connect_timeout, first_byte_timeout, idle_timeout, idle_connections_max, .. } =
        config.upstream;
    Limits {
        connect: connect_timeout,
        first_byte: first_byte_timeout,
        idle: idle_timeout,
        pooled: POOLED,
        idle_connections_max,
    }
}

/// Reads the operator's own roots, each time anew: a file that was exchanged is in force with the reload that sees it.
pub(super) fn trust(roots: &Roots) -> Result<Trust, BootError> {
    let Roots { file, only } = roots;
    let roots = file.as_deref().map(|path| certificates(path, CA)).transpose()?.unwrap_or_default();
    let mut context = Context::new(&SHA256);
    context.update(&[u8::from(*only)]);
    for root in &roots {
        context.update(root.as_ref());
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    let mut store = RootCertStore::empty();
    for root in &roots {
        let path = file.as_deref().unwrap_or(std::path::Path::new(""));
        store.add(root.clone()).map_err(|error| wrong(CA, path, format!("a root in it cannot be used: {error}")))?;
    }
    Ok(Trust { roots, only: *only, digest })
}

/// TLS with the roots of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others) and the operator's, or those alone.
fn client_tls(http2: bool, trust: &Trust) -> Result<Arc<ClientConfig>, BootError> {
    let mut roots = RootCertStore::empty();
    if !trust.only {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    roots.add_parsable_certificates(trust.roots.iter().cloned());
    if roots.is_empty() {
        return Err(BootError::Roots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| BootError::Roots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(openai_url: &str) -> Config {
        let variables = [
            ("OPENAI_API_KEY", "sk-planted"),
            ("GEMINI_API_KEY", "planted"),
            ("TOLLGATE_OPENAI_URL", openai_url),
            ("TOLLGATE_GEMINI_URL", "http://127.0.0.1:2"),
        ];
        let environment: BTreeMap<String, String> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Config::load(&[], &environment, None).unwrap()
    }

    #[test]
    fn a_place_that_did_not_change_is_kept_with_its_connections() {
        let before = of(&config("http://127.0.0.1:1"), &[]).unwrap();
        let after = of(&config("http://127.0.0.1:3"), &before).unwrap();
        let same = |at: usize| Arc::ptr_eq(&before[at].upstream.place, &after[at].upstream.place);
        assert_eq!((after.len(), same(0), same(1), same(2)), (3, false, true, true));
        // Vertex paths go to the Gemini origin by default: one place, one pool.
        assert!(Arc::ptr_eq(&after[1].upstream.place, &after[2].upstream.place));
    }
}
