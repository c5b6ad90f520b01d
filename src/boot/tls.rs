//! What the listeners show to clients over TLS, whom the admin listener asks for a certificate, and how commands of this
//! program come in there.
//!
//! May use: everything. TLS 1.2 and 1.3, with the cipher suites of rustls, all of which have forward secrecy.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::config::{Config, Tls};

use super::BootError;

/// What is spoken over TLS, the preferred first.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// How a file is called where something is wrong with it: its key and its variable.
type Name = (&'static str, &'static str);

/// The files of one listener, by name.
struct Names {
    cert: Name,
    key: Name,
    client_ca: Name,
}

const PROXY: Names = Names {
    cert: ("listen.tls.cert", "TOLLGATE_TLS_CERT"),
    key: ("listen.tls.key", "TOLLGATE_TLS_KEY"),
    client_ca: ("", ""),
};

const ADMIN: Names = Names {
    cert: ("admin.tls.cert", "TOLLGATE_ADMIN_TLS_CERT"),
    key: ("admin.tls.key", "TOLLGATE_ADMIN_TLS_KEY"),
    client_ca: ("admin.tls.client_ca", "TOLLGATE_ADMIN_TLS_CLIENT_CA"),
};

/// What the two listeners show; `None` for one that listens in the clear.
pub struct Shown {
    /// Apps see this.
    pub proxy: Option<Arc<ServerConfig>>,
    /// Admins see this.
    pub admin: Option<Arc<ServerConfig>>,
}

/// The certificates and keys of the configuration, read and compared.
///
/// # Errors
/// When a file is missing or wrong, or when two do not belong together.
pub fn of(config: &Config) -> Result<Shown, BootError> {
    let of = |tls: &Option<Tls>, names| tls.as_ref().map(|tls| server(tls, names)).transpose();
    Ok(Shown { proxy: of(&config.listen.tls, &PROXY)?, admin: of(&config.listen.admin_tls, &ADMIN)? })
}

fn server(files: &Tls, names: &Names) -> Result<Arc<ServerConfig>, BootError> {
    let Tls { cert, key, client_ca } = files;
    let chain = certificates(cert, names.cert)?;
    let private = private_key(key, names.key)?;
    let crypto = crypto();
    let builder = ServerConfig::builder_with_provider(crypto.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(names.cert, cert, error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(Arc::new(asking(path, names.client_ca, &chain, crypto)?)),
    };
    let mut server =
        builder.with_single_cert(chain, private).map_err(|error| wrong_pair(names, (cert, key), &error))?;
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(server))
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// All certificates of a file; at least one.
pub(super) fn certificates(path: &Path, name: Name) -> Result<Vec<CertificateDer<'static>>, BootError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(wrong(name, path, unreadable(&pem::Error::NoItemsFound, "certificate"))),
        Err(error) => Err(wrong(name, path, unreadable(&error, "certificate"))),
    }
}

fn private_key(path: &Path, name: Name) -> Result<PrivateKeyDer<'static>, BootError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(name, path, unreadable(&error, "private key")))
}

/// Whom a listener asks for a certificate, by the roots in a file.
fn asking(
    path: &Path,
    name: Name,
    own: &[CertificateDer<'static>],
    crypto: Arc<CryptoProvider>,
) -> Result<SignedOrOwn, BootError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path, name)? {
        roots.add(root).map_err(|error| wrong(name, path, format!("a root in it cannot be used: {error}")))?;
    }
    let signed = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto).build();
    let signed = signed.map_err(|error| wrong(name, path, format!("its roots cannot be used: {error}")))?;
    Ok(SignedOrOwn { signed, own: own.first().cloned() })
}

/// Lets in whom the given roots vouch for, and whoever shows the listener's own certificate: to prove that it is theirs
/// takes the listener's private key, which a command on the gateway's own machine reads from the same file. Otherwise
/// `tollgate verify` and `tollgate health --admin` would need a certificate, and a place in the configuration, of their own.
#[derive(Debug)]
struct SignedOrOwn {
    signed: Arc<dyn ClientCertVerifier>,
    own: Option<CertificateDer<'static>>,
}

impl ClientCertVerifier for SignedOrOwn {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: the listener's own certificate need not come from these roots, and the client shall send it all the same.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.own.as_ref().is_some_and(|own| own.as_ref() == end_entity.as_ref()) {
            return Ok(ClientCertVerified::assertion());
        }
        self.signed.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// How a command of this program, which reads the same files, comes to the listener that they belong to: it takes the
/// certificate in the file and no other. It asks at an address, which certificates seldom name, and so needs no name.
///
/// # Errors
/// When a file is missing or wrong.
pub fn to_admin(files: &Tls) -> Result<Arc<ClientConfig>, BootError> {
    to_own(files, &ADMIN)
}

/// The same of the proxy listener.
///
/// # Errors
/// When a file is missing or wrong.
pub fn to_proxy(files: &Tls) -> Result<Arc<ClientConfig>, BootError> {
    to_own(files, &PROXY)
}

fn to_own(files: &Tls, names: &Names) -> Result<Arc<ClientConfig>, BootError> {
    let Tls { cert, key, client_ca } = files;
    let chain = certificates(cert, names.cert)?;
    let crypto = crypto();
    let only = Arc::new(Only { shown: chain.first().cloned(), crypto: crypto.clone() });
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(names.cert, cert, error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(only);
    let client = match client_ca {
        None => builder.with_no_client_auth(),
        Some(_) => {
            let private = private_key(key, names.key)?;
            builder.with_client_auth_cert(chain, private).map_err(|error| wrong_pair(names, (cert, key), &error))?
        }
    };
    Ok(Arc::new(client))
}

/// Takes one certificate, and whoever proves that it is theirs.
#[derive(Debug)]
struct Only {
    shown: Option<CertificateDer<'static>>,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.shown.as_ref().is_some_and(|shown| shown.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

fn unreadable(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("there is no {wanted} in it (PEM, without a passphrase)"),
        error => format!("it is no PEM file: {error}"),
    }
}

fn wrong_pair(names: &Names, (cert, key): (&Path, &Path), error: &rustls::Error) -> BootError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong(names.key, key, format!("it is not the key of the certificate in {}", cert.display()))
        }
        rustls::Error::InvalidCertificate(_) => wrong(names.cert, cert, format!("its certificate is broken: {error}")),
        error => wrong(names.key, key, format!("its key cannot be used: {error}")),
    }
}

pub(super) fn wrong((key, variable): Name, path: &Path, reason: String) -> BootError {
    BootError::Tls { key, variable, path: path.to_owned(), reason }
}
