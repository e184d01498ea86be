//! One certificate in its files: a chain and a key in PEM, and perhaps an OCSP response. Read and checked as a whole: what
//! would fail in handshakes is refused here, with the file that is wrong and what would be right.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Bytes of one file at most.
const FILE_BYTES: u64 = 256 << 10;
/// Names of one certificate that are looked at; further ones are not served.
const NAMES: usize = 1_000;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {why}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        why: io::Error,
    },
    /// A file is too large.
    #[error("{path} has more than {FILE_BYTES} bytes: that is no file of a certificate", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// The chain.
    #[error("{path} is not a certificate chain: {why}; it has to hold «BEGIN CERTIFICATE» blocks, the server's own first", path = path.display())]
    Chain {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key.
    #[error("{path} is not a private key that can be used: {why}; it has to hold one «BEGIN PRIVATE KEY» block, without a password", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// They do not belong together.
    #[error("the key {key} does not belong to the certificate {cert}: give the one that the certificate was requested with", key = key.display(), cert = cert.display())]
    Mismatch {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// It is over.
    #[error("the certificate {path} has expired on {since}: renew it", path = path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// When.
        since: String,
    },
    /// It has not begun.
    #[error("the certificate {path} is not valid before {from}: check the clock of this machine, or use the older one until then", path = path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// When.
        from: String,
    },
    /// Nobody could ask for it.
    #[error("the certificate {path} names no host: it needs DNS names as subject alternative names, or has to be the default one", path = path.display())]
    NoNames {
        /// Which file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no certificate: name one by its files, or a folder that holds NAME.crt and NAME.key")]
    None,
    /// A folder with too much in it.
    #[error("{path} holds more than {most} certificates", path = path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many are allowed.
        most: usize,
    },
    /// The library of TLS.
    #[error("TLS cannot be set up: {why}")]
    Setup {
        /// What it said.
        why: String,
    },
}

/// Where one certificate is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Need not exist.
    pub(super) ocsp: PathBuf,
}

/// What a certificate in a file is for: the DNS names in it, lower case, and when it ends. The first one where there is a
/// chain; it may have ended already.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn certificate_in(path: &Path) -> Result<(Vec<String>, SystemTime), CertificateError> {
    let wrong = |why: String| CertificateError::Chain { path: path.to_owned(), why };
    let der = CertificateDer::from_pem_slice(&read(path)?).map_err(|error| wrong(error.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| wrong(error.to_string()))?;
    Ok((names(&parsed), time(parsed.validity().not_after.timestamp())))
}

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower case; `*.` in front: one label.
    pub(super) names: Vec<String>,
    pub(super) not_after: SystemTime,
}

impl Files {
    /// Beside the chain stands the OCSP response, `.ocsp` instead of its ending.
    pub(super) fn new(cert: PathBuf, key: PathBuf) -> Self {
        let ocsp = cert.with_extension("ocsp");
        Self { cert, key, ocsp }
    }

    /// Reads and checks all of it.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub(super) fn load(&self, provider: &CryptoProvider, now: SystemTime) -> Result<Loaded, CertificateError> {
        let wrong_chain = |why: String| CertificateError::Chain { path: self.cert.clone(), why };
        let wrong_key = |why: String| CertificateError::Key { path: self.key.clone(), why };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&self.cert)?)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong_chain(error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| wrong_chain("there is none in it".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong_chain(error.to_string()))?;
        let (not_before, not_after) =
            (time(parsed.validity().not_before.timestamp()), time(parsed.validity().not_after.timestamp()));
        if now > not_after {
            return Err(CertificateError::Expired {
                path: self.cert.clone(),
                since: httpdate::fmt_http_date(not_after),
            });
        }
        if now < not_before {
            let from = httpdate::fmt_http_date(not_before);
            return Err(CertificateError::NotYetValid { path: self.cert.clone(), from });
        }
        let names = names(&parsed);
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| wrong_key(error.to_string()))?;
        let mut key = CertifiedKey::from_der(chain.clone(), key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch { cert: self.cert.clone(), key: self.key.clone() }
            }
            Error::InvalidCertificate(error) => wrong_chain(format!("{error:?}")),
            error => wrong_key(error.to_string()),
        })?;
        key.ocsp = match read(&self.ocsp) {
            Ok(response) => Some(response).filter(|response| !response.is_empty()),
            Err(CertificateError::Read { why, .. }) if why.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Loaded { key: Arc::new(key), names, not_after })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let cannot = |why| CertificateError::Read { path: path.to_owned(), why };
    if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES {
        return Err(CertificateError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(cannot)
}

/// The DNS names that it is for; the common name is what nobody looks at any more (RFC 9525 section 6.3).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    dns.take(NAMES).collect()
}

fn time(timestamp_s: i64) -> SystemTime {
    u64::try_from(timestamp_s).map_or(UNIX_EPOCH, |seconds| {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or_else(|| UNIX_EPOCH + Duration::from_secs(1 << 40))
    })
}
