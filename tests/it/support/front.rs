//! TLS in front of tests that speak HTTP by hand: a port that takes plain bytes and carries them to a gateway over TLS.
//!
//! So every client of these tests can come over TLS, and what it sends and gets stays bytes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS12;
use rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A certificate for `localhost` and its key, made for these tests alone.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/localhost.pem");
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/localhost.key");
/// Another pair for the same name.
pub const RENEWED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/renewed.pem");
pub const RENEWED_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/renewed.key");

/// A certificate of an admin and its key, and the root that vouches for it.
pub const ADMIN: (&str, &str) = (
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/admin.pem"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/admin.key"),
);
pub const ADMINS_CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/admins-ca.pem");

/// What a client over TLS trusts, shows and speaks.
pub struct Terms<'a> {
    pub trusts: &'a str,
    /// A certificate and its key.
    pub shows: Option<(&'a str, &'a str)>,
    /// ALPN; none is sent where it is empty.
    pub speaks: &'a [&'a str],
    pub only_tls_1_2: bool,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self { trusts: CERTIFICATE, shows: None, speaks: &["http/1.1"], only_tls_1_2: false }
    }
}

impl Terms<'_> {
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(Path::new(self.trusts)).unwrap()).unwrap();
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let versions = if self.only_tls_1_2 { &[&TLS12][..] } else { DEFAULT_VERSIONS };
        let builder = ClientConfig::builder_with_provider(crypto).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = self.speaks.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A port whose connections each go on to `gateway` over TLS as `localhost`; one that is not trusted is closed.
pub fn tls_to(gateway: SocketAddr, terms: &Terms<'_>) -> SocketAddr {
    let connector = TlsConnector::from(terms.client());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut client, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let Ok(tcp) = TcpStream::connect(gateway).await else { return };
                    let name = ServerName::try_from("localhost").unwrap();
                    if let Ok(mut tls) = connector.connect(name, tcp).await {
                        // How it ends is seen by the client at its own end.
                        copy_bidirectional(&mut client, &mut tls).await.ok();
                    }
                });
            }
        });
    });
    address
}
