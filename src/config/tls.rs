//! The files that TLS is made of: what the listeners show, whom they ask for a certificate, whom providers are known by.
//!
//! May use: nothing beyond [`super`]. Files are named here and read in `boot`; they are watched as the others are, so that
//! a renewed certificate is shown without a restart.

use std::path::{Path, PathBuf};

use super::{Reader, Stamped};

/// The files that a listener shows itself by: PEM, not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and those between it and a root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots of the certificates that clients have to show; `None`: they show none.
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    /// All of them.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }
}

/// Whom providers are known by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// The operator's own roots: PEM, not read yet.
    pub file: Option<PathBuf>,
    /// Whether those of the system count for nothing.
    pub only: bool,
}

/// The keys of one listener.
struct Names {
    cert: (&'static str, &'static str),
    key: (&'static str, &'static str),
    client_ca: Option<(&'static str, &'static str)>,
}

const PROXY: Names = Names {
    cert: ("listen.tls.cert", "TOLLGATE_TLS_CERT"),
    key: ("listen.tls.key", "TOLLGATE_TLS_KEY"),
    client_ca: None,
};

const ADMIN: Names = Names {
    cert: ("admin.tls.cert", "TOLLGATE_ADMIN_TLS_CERT"),
    key: ("admin.tls.key", "TOLLGATE_ADMIN_TLS_KEY"),
    client_ca: Some(("admin.tls.client_ca", "TOLLGATE_ADMIN_TLS_CLIENT_CA")),
};

#[expect(clippy::option_option, reason = "absent and wrong are two things, and an error is noted already")]
impl Reader {
    pub(super) fn tls_of_proxy(&mut self) -> Option<Option<Tls>> {
        self.tls(&PROXY)
    }

    pub(super) fn tls_of_admin(&mut self) -> Option<Option<Tls>> {
        self.tls(&ADMIN)
    }

    fn tls(&mut self, names: &Names) -> Option<Option<Tls>> {
        let cert = self.file(names.cert.0)?;
        let key = self.file(names.key.0)?;
        let client_ca = match names.client_ca {
            Some((name, _)) => self.file(name)?,
            None => None,
        };
        let (there, missing) = match (cert, key, client_ca) {
            (None, None, None) => return Some(None),
            (Some(cert), Some(key), client_ca) => return Some(Some(Tls { cert, key, client_ca })),
            (Some(_), None, _) => (names.cert.0, names.key),
            (None, Some(_), _) => (names.key.0, names.cert),
            (None, None, Some(_)) => (names.client_ca.map_or("", |(name, _)| name), names.cert),
        };
        let (missing, variable) = missing;
        self.settings.errors.push(format!("{there} is set and {missing} is not: set both, or none: {variable}=FILE"));
        None
    }

    /// The roots that providers are verified by.
    pub(super) fn roots(&mut self) -> Option<Roots> {
        let file = self.file("upstream.ca")?;
        let only = self.value("upstream.ca_only", super::values::yes)?;
        if only && file.is_none() {
            let line = "upstream.ca_only is true and upstream.ca is not set, so that no provider could be verified: set \
                        TOLLGATE_UPSTREAM_CA=FILE";
            self.settings.errors.push(line.to_owned());
            return None;
        }
        Some(Roots { file, only })
    }

    /// A file that is read later and watched from here on.
    fn file(&mut self, name: &str) -> Option<Option<PathBuf>> {
        let path = self.optional(name, |text| Ok(PathBuf::from(text)))?;
        self.settings.files.extend(path.as_deref().map(|path: &Path| Stamped::now(path)));
        Some(path)
    }
}
