//! The certificates of a process by the names that clients ask for, kept in step with their files.
//!
//! What handshakes look into is one immutable [`Set`] behind an [`ArcSwap`]: they take no lock, and a reload replaces it as
//! a whole. One lock covers the sources (what each file was like when it was last read); only reloads take it, and nothing
//! under it can fail half-way: the new set is built first. A certificate that cannot be read any more keeps its place as it
//! was, so that a half-written file or an expired one never takes a host off the net.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::{CertificateError, Files, Loaded};

/// Certificates in one process at most.
const CERTIFICATES: usize = 10_000;
/// The pair of a folder that answers for names that no certificate has.
const DEFAULT: &str = "default";

/// Where certificates come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateSources {
    /// Chain and key of the certificate that answers for every name that no other has, and for clients that name none.
    pub default: Option<(PathBuf, PathBuf)>,
    /// A folder of pairs `NAME.crt` and `NAME.key`, served for the DNS names in them; `default.crt` is the default one,
    /// unless [`CertificateSources::default`] is set.
    pub folder: Option<PathBuf>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Store {
    sources: CertificateSources,
    provider: Arc<CryptoProvider>,
    set: ArcSwap<Set>,
    known: Mutex<Known>,
    pub(super) reloads: AtomicU64,
    pub(super) reload_failures: AtomicU64,
}

/// What handshakes look into.
#[derive(Debug, Default)]
struct Set {
    /// By host name, and by what follows `*.`.
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

/// What the files were like when they were last read.
#[derive(Debug, Default)]
struct Known {
    certificates: HashMap<Files, Certificate>,
    /// Newcomers that were refused.
    refused: HashMap<Files, Identity>,
}

#[derive(Debug)]
struct Certificate {
    identity: Identity,
    loaded: Arc<Loaded>,
}

/// Tells that a file was replaced or written to, without reading it: inode, size and times of chain, key and OCSP response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity([Option<(u64, u64, i64, i64)>; 3]);

impl Identity {
    fn of(files: &Files) -> Self {
        Self([&files.cert, &files.key, &files.ocsp].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        }))
    }
}

impl Store {
    /// Reads all certificates.
    ///
    /// # Errors
    /// See [`CertificateError`]: at the start every single one has to be good.
    pub(super) fn open(
        sources: CertificateSources,
        provider: Arc<CryptoProvider>,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let store = Self {
            sources,
            provider,
            set: ArcSwap::default(),
            known: Mutex::default(),
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        };
        let mut certificates = HashMap::new();
        for files in store.list()? {
            let identity = Identity::of(&files);
            let loaded = Arc::new(files.load(&store.provider, now)?);
            certificates.insert(files, Certificate { identity, loaded });
        }
        store.set.store(Arc::new(store.arrange(&certificates)?));
        store.known.lock().unwrap_or_else(PoisonError::into_inner).certificates = certificates;
        Ok(store)
    }

    /// Reads what has changed, or everything if `all`. Every failure is in the log, and leaves what was served.
    /// How many certificates are served, and how many of them as they were although their files say something else.
    pub(super) fn reload(&self, all: bool, now: SystemTime) -> (usize, usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: &CertificateError| {
            self.reload_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "certificates are served as they were");
        };
        let listed = match self.list() {
            Ok(listed) => listed,
            Err(error) => {
                failed(&error);
                return (known.certificates.len(), known.certificates.len());
            }
        };
        let (mut next, mut changed, mut kept) = (HashMap::new(), false, 0);
        let refused = std::mem::take(&mut known.refused);
        for files in listed {
            let identity = Identity::of(&files);
            let before = known.certificates.get(&files);
            if let Some(before) = before.filter(|before| !all && before.identity == identity) {
                next.insert(files, Certificate { identity, loaded: Arc::clone(&before.loaded) });
                continue;
            }
            if !all && refused.get(&files) == Some(&identity) {
                kept += 1;
                known.refused.insert(files, identity);
                continue;
            }
            match files.load(&self.provider, now) {
                Ok(loaded) => {
                    changed = true;
                    next.insert(files, Certificate { identity, loaded: Arc::new(loaded) });
                }
                Err(error) => {
                    failed(&error);
                    kept += 1;
                    // Remembered as looked at, so that the log says it once for each change.
                    let before = before.map(|before| Arc::clone(&before.loaded));
                    match before {
                        Some(loaded) => drop(next.insert(files, Certificate { identity, loaded })),
                        None => drop(known.refused.insert(files, identity)),
                    }
                }
            }
        }
        changed |= next.len() != known.certificates.len();
        if changed {
            match self.arrange(&next) {
                Ok(set) => {
                    self.set.store(Arc::new(set));
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(certificates = next.len(), "certificates reloaded");
                }
                Err(error) => {
                    failed(&error);
                    return (known.certificates.len(), kept);
                }
            }
        }
        known.certificates = next;
        (known.certificates.len(), kept)
    }

    /// The certificate for a name, or for clients that name none.
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.set.load().find(name).cloned()
    }

    /// Every certificate that is served: the path of its chain, and when it ends, in seconds since the Unix epoch.
    pub(super) fn ends(&self) -> Vec<(PathBuf, u64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let end = |loaded: &Loaded| loaded.not_after.duration_since(UNIX_EPOCH).map_or(0, |end| end.as_secs());
        known.certificates.iter().map(|(files, known)| (files.cert.clone(), end(&known.loaded))).collect()
    }

    fn list(&self) -> Result<Vec<Files>, CertificateError> {
        let mut listed = Vec::new();
        if let Some((cert, key)) = &self.sources.default {
            listed.push(Files::new(cert.clone(), key.clone()));
        }
        if let Some(folder) = &self.sources.folder {
            list_folder(folder, &mut listed)?;
        }
        if listed.is_empty() { Err(CertificateError::None) } else { Ok(listed) }
    }

    fn arrange(&self, certificates: &HashMap<Files, Certificate>) -> Result<Set, CertificateError> {
        let mut set = Set::default();
        let named = self.sources.default.as_ref().map(|(cert, _)| cert);
        // In order, so that of two certificates for one name always the same is served: the one that ends last.
        let mut ordered: Vec<_> = certificates.iter().collect();
        ordered.sort_by_key(|(files, known)| (known.loaded.not_after, files.cert.clone()));
        for (files, Certificate { loaded, .. }) in ordered {
            let is_default = match named {
                Some(cert) => files.cert == *cert,
                None => files.cert.file_stem().is_some_and(|stem| stem == DEFAULT),
            };
            if is_default {
                set.default = Some(Arc::clone(&loaded.key));
            } else if loaded.names.is_empty() {
                return Err(CertificateError::NoNames { path: files.cert.clone() });
            }
            for name in &loaded.names {
                match name.strip_prefix("*.") {
                    Some(rest) => set.wildcard.insert(rest.to_owned(), Arc::clone(&loaded.key)),
                    None => set.exact.insert(name.clone(), Arc::clone(&loaded.key)),
                };
            }
        }
        Ok(set)
    }
}

impl Set {
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.default.as_ref() };
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let wildcard = || name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        self.exact.get(name).or_else(wildcard).or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

fn list_folder(folder: &Path, listed: &mut Vec<Files>) -> Result<(), CertificateError> {
    let cannot = |why| CertificateError::Read { path: folder.to_owned(), why };
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            if listed.len() >= CERTIFICATES {
                return Err(CertificateError::TooMany { path: folder.to_owned(), most: CERTIFICATES });
            }
            let key = path.with_extension("key");
            listed.push(Files::new(path, key));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs;

    fn write(folder: &Path, name: &str, host: &str) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("certificate");
        std::fs::write(folder.join(format!("{name}.crt")), made.cert.pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).expect("written");
    }

    #[test]
    fn a_look_reads_what_has_changed_and_says_what_is_wrong_once() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "a", "a.example");
        let sources = CertificateSources { default: None, folder: Some(folder.path().to_owned()) };
        let now = SystemTime::now();
        let store = Store::open(sources, Arc::new(aws_lc_rs::default_provider()), now).expect("good");
        let counts = || (store.reloads.load(Ordering::Relaxed), store.reload_failures.load(Ordering::Relaxed));
        let first = store.find(Some("a.example")).expect("served");
        store.reload(false, now);
        assert_eq!(counts(), (0, 0));
        assert!(Arc::ptr_eq(&first, &store.find(Some("A.example")).expect("served")));

        write(folder.path(), "a", "a.example");
        write(folder.path(), "b", "b.example");
        store.reload(false, now);
        assert_eq!(counts(), (1, 0));
        assert!(!Arc::ptr_eq(&first, &store.find(Some("a.example")).expect("served")));
        assert!(store.find(Some("b.example")).is_some());

        // An old one that has become bad stays, a new one that is bad does not come; each is said once.
        std::fs::write(folder.path().join("a.key"), "").expect("written");
        std::fs::write(folder.path().join("c.crt"), "").expect("written");
        for _ in 0..3 {
            store.reload(false, now);
            assert_eq!(counts(), (1, 2));
        }
        assert!(store.find(Some("a.example")).is_some() && store.find(Some("c.example")).is_none());

        std::fs::remove_dir_all(folder.path()).expect("removed");
        store.reload(false, now);
        assert_eq!(counts(), (1, 3));
        assert!(store.find(Some("b.example")).is_some());
    }

    #[test]
    fn of_two_for_one_name_the_one_that_ends_last_is_served() {
        let folder = tempfile::tempdir().expect("folder");
        for (name, days) in [("a", 20_u64), ("b", 30), ("c", 10)] {
            let mut params = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).expect("names");
            params.not_after = (SystemTime::now() + std::time::Duration::from_secs(days * 86_400)).into();
            let key = rcgen::KeyPair::generate().expect("key");
            let made = params.self_signed(&key).expect("certificate");
            std::fs::write(folder.path().join(format!("{name}.crt")), made.pem()).expect("written");
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).expect("written");
        }
        let sources = CertificateSources { default: None, folder: Some(folder.path().to_owned()) };
        let store = Store::open(sources, Arc::new(aws_lc_rs::default_provider()), SystemTime::now()).expect("good");
        let served = store.find(Some("x.example")).expect("served");
        let known = store.known.lock().expect("lock");
        let last = known.certificates.values().max_by_key(|known| known.loaded.not_after).expect("one");
        assert!(Arc::ptr_eq(&served, &last.loaded.key));
    }
}
