//! What the proxy listener shows to clients over TLS.
//!
//! May use: everything.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Config, Tls};

use super::BootError;

/// What is spoken over TLS, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate and the key of the configuration, read and compared; `None` where it has none.
///
/// # Errors
/// When a file is missing or wrong, or when the two do not belong together.
pub fn of(config: &Config) -> Result<Option<Arc<ServerConfig>>, BootError> {
    let Some(Tls { cert, key }) = &config.listen.tls else { return Ok(None) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong_certificate(cert, unreadable(&error, "certificate")))?;
    if chain.is_empty() {
        return Err(wrong_certificate(cert, unreadable(&pem::Error::NoItemsFound, "certificate")));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong_key(key, unreadable(&error, "private key")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong_certificate(cert, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong_pair(cert, key, &error))?;
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Some(Arc::new(server)))
}

fn unreadable(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("there is no {wanted} in it (PEM, without a passphrase)"),
        error => format!("it is no PEM file: {error}"),
    }
}

fn wrong_pair(cert: &Path, key: &Path, error: &rustls::Error) -> BootError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong_key(key, format!("it is not the key of the certificate in {}", cert.display()))
        }
        rustls::Error::InvalidCertificate(_) => wrong_certificate(cert, format!("its certificate is broken: {error}")),
        error => wrong_key(key, format!("its key cannot be used: {error}")),
    }
}

fn wrong_certificate(path: &Path, reason: String) -> BootError {
    BootError::Tls { key: "listen.tls.cert", variable: "TOLLGATE_TLS_CERT", path: path.to_owned(), reason }
}

fn wrong_key(path: &Path, reason: String) -> BootError {
    BootError::Tls { key: "listen.tls.key", variable: "TOLLGATE_TLS_KEY", path: path.to_owned(), reason }
}
