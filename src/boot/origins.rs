//! The providers that are on: where they are, with which key, over which TLS.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use secrecy::SecretString;

use crate::config::{self, Config, Providers};
use crate::domain::ids::ProviderId;
use crate::edge::exchange::Origin;
use crate::edge::upstream::{Limits, Upstream};

use super::BootError;

/// A pooled connection to a provider is not used after this: both close theirs after about a minute.
const POOLED: Duration = Duration::from_secs(50);

/// Every provider whose key is there.
pub(super) fn of(config: &Config) -> Result<Vec<Origin>, BootError> {
    let Providers { openai, gemini, vertex } = &config.providers;
    let places = [
        ("openai", false, &openai.api_key, &openai.origin),
        ("gemini", false, &gemini.api_key, &gemini.origin),
        ("gemini", true, &gemini.api_key, vertex),
    ];
    let on = || places.into_iter().filter_map(|(name, vertex, key, place)| Some((name, vertex, key.clone()?, place)));
    let tls = if on().any(|(.., place)| place.tls) { Some(client_tls()?) } else { None };
    let origin = |(index, (name, vertex, key, place)): (usize, (&'static str, bool, SecretString, &config::Origin))| {
        let upstream = upstream(config, index, place, tls.as_ref())?;
        Ok(Origin { provider: ProviderId::new(name), vertex, upstream, key })
    };
    on().enumerate().map(origin).collect()
}

fn upstream(
    config: &Config,
    index: usize,
    place: &config::Origin,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Upstream, BootError> {
    let wrong = || BootError::HostName(place.host.clone());
    let name = || ServerName::try_from(place.host.clone()).map_err(|_| wrong());
    let tls = match tls.filter(|_| place.tls) {
        Some(tls) => Some((tls.clone(), name()?)),
        None => None,
    };
    let limits = &config.upstream;
    Ok(Upstream {
        index,
        host: place.host.clone(),
        port: place.port,
        authority: HeaderValue::from_str(&place.authority()).map_err(|_| wrong())?,
        tls,
        limits: Limits {
            connect: limits.connect_timeout,
            first_byte: limits.first_byte_timeout,
            idle: limits.idle_timeout,
            pooled: POOLED,
            idle_connections_max: limits.idle_connections_max,
        },
    })
}

/// TLS as the system trusts it; `SSL_CERT_FILE` and `SSL_CERT_DIR` name other roots.
fn client_tls() -> Result<Arc<ClientConfig>, BootError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(BootError::Roots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| BootError::Roots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
