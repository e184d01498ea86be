//! The development authority: `up` makes one at its first start and signs a certificate for its edges and its router, so
//! that `https://` works at once on this machine. Whoever trusts it (`littoral ca trust`) trusts every certificate that its
//! key signs: the key stays in the data folder, readable by its owner only, and is nothing for production.
//!
//! In the data folder, below `tls/`: `ca.crt` and `ca.key`, `server.crt` and `server.key`. Each is written whole or not at all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use net::CertificateSources;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::datadir::{DataDir, DataDirError};

/// The authority's certificate, in the data folder.
pub const CA_FILE: &str = "tls/ca.crt";
const CA_KEY_FILE: &str = "tls/ca.key";
const SERVER_FILE: &str = "tls/server.crt";
const SERVER_KEY_FILE: &str = "tls/server.key";

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority lasts; near its end it is made anew, and has to be trusted anew.
const CA_DAYS: u32 = 3_650;
/// The authority is made anew when less is left.
const CA_RENEW_DAYS: u32 = 365;
/// How long a certificate of a server lasts; what is longer than 825 days no browser takes.
const SERVER_DAYS: u32 = 90;
/// A server's is made anew when less is left.
const SERVER_RENEW_DAYS: u32 = 30;
/// Clocks of machines near by may go a little differently.
const EARLIER: Duration = DAY;
/// Names in one certificate; further ones are left out.
const MAX_NAMES: usize = 500;

/// Names that lead to this machine.
const LOCAL_NAMES: [&str; 2] = ["localhost", "*.localhost"];

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its key is none, or no certificate comes of it.
    #[error("{path}: {why}", path = path.display())]
    Crypto {
        /// The key of the authority.
        path: PathBuf,
        /// What is wrong.
        why: rcgen::Error,
    },
}

/// Makes sure that there is an authority, and a certificate of it for this machine, for `listen` and for `hosts` that lasts
/// for a while. Where the certificate is.
///
/// # Errors
/// See [`AuthorityError`].
pub fn certificate_for(
    data_dir: &DataDir,
    listen: IpAddr,
    hosts: &[String],
) -> Result<CertificateSources, AuthorityError> {
    let now = SystemTime::now();
    let crypto = |why| AuthorityError::Crypto { path: data_dir.join(CA_KEY_FILE), why };
    let (issuer, renewed) = authority(data_dir, now)?;
    let names = names(hosts);
    let sources = CertificateSources {
        default: Some((data_dir.join(SERVER_FILE), data_dir.join(SERVER_KEY_FILE))),
        folder: None,
    };
    let good = net::certificate_in(&data_dir.join(SERVER_FILE)).is_ok_and(|(has, end)| {
        has.into_iter().collect::<BTreeSet<_>>() == names && end > now + DAY * SERVER_RENEW_DAYS
    });
    if good && !renewed && data_dir.join(SERVER_KEY_FILE).exists() {
        return Ok(sources);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Littoral, development");
    (params.not_before, params.not_after) = ((now - EARLIER).into(), (now + DAY * SERVER_DAYS).into());
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name).map_err(crypto)?));
    }
    for address in addresses(listen) {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(crypto)?;
    let certificate = params.signed_by(&key, &issuer).map_err(crypto)?;
    data_dir.write(SERVER_KEY_FILE, &key.serialize_pem(), 0o600)?;
    data_dir.write(SERVER_FILE, &certificate.pem(), 0o644)?;
    Ok(sources)
}

/// The authority, and whether it was made just now.
fn authority(data_dir: &DataDir, now: SystemTime) -> Result<(Issuer<'static, KeyPair>, bool), AuthorityError> {
    let key_path = data_dir.join(CA_KEY_FILE);
    let crypto = |why| AuthorityError::Crypto { path: key_path.clone(), why };
    data_dir.folder("tls")?;
    let lasts = net::certificate_in(&data_dir.join(CA_FILE)).is_ok_and(|(_, end)| end > now + DAY * CA_RENEW_DAYS);
    if lasts && let Some(pem) = data_dir.read(CA_KEY_FILE)? {
        let key = KeyPair::from_pem(&pem).map_err(crypto)?;
        // What of the authority stands in what it signs is made of its key alone, so its certificate need not be read.
        return Ok((Issuer::new(params(&key, now), key), false));
    }
    let key = KeyPair::generate().map_err(crypto)?;
    let params = params(&key, now);
    let certificate = params.self_signed(&key).map_err(crypto)?;
    data_dir.write(CA_KEY_FILE, &key.serialize_pem(), 0o600)?;
    data_dir.write(CA_FILE, &certificate.pem(), 0o644)?;
    Ok((Issuer::new(params, key), true))
}

fn params(key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Its own name for each, so that an old one that is still trusted is not taken for it.
    let digest = blake3::hash(key.public_key_raw()).to_hex();
    let name = format!("Littoral development authority {}", digest.get(..8).unwrap_or_default());
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = ((now - EARLIER).into(), (now + DAY * CA_DAYS).into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn names(hosts: &[String]) -> BTreeSet<String> {
    let local = LOCAL_NAMES.iter().map(|&name| name.to_owned());
    local.chain(hosts.iter().filter(|host| api::addressing::is_hostname(host)).cloned()).take(MAX_NAMES).collect()
}

fn addresses(listen: IpAddr) -> BTreeSet<IpAddr> {
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    local.into_iter().chain(Some(listen).filter(|address| !address.is_unspecified())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::Tls;
    use std::os::unix::fs::PermissionsExt as _;

    const LISTEN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn made_once_kept_and_made_anew_for_other_names() {
        let folder = tempfile::tempdir().expect("folder");
        let data_dir = DataDir::open(folder.path()).expect("data folder");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let sources = certificate_for(&data_dir, LISTEN, &[]).expect("made");
        let (ca, server) = (read(CA_FILE), read(SERVER_FILE));
        for key in [CA_KEY_FILE, SERVER_KEY_FILE] {
            let mode = std::fs::metadata(folder.path().join(key)).expect(key).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let (_, end) = net::certificate_in(&folder.path().join(CA_FILE)).expect("authority");
        assert!(end > SystemTime::now() + DAY * (CA_DAYS - 1));
        assert_eq!(certificate_for(&data_dir, LISTEN, &[]).expect("kept"), sources);
        assert_eq!((read(CA_FILE), read(SERVER_FILE)), (ca.clone(), server.clone()));
        // Another host: another certificate of the same authority.
        let hosts = ["shop.example".to_owned(), "not a host".to_owned()];
        let sources = certificate_for(&data_dir, LISTEN, &hosts).expect("made");
        assert_eq!(read(CA_FILE), ca);
        assert_ne!(read(SERVER_FILE), server);
        let (names, _) = net::certificate_in(&folder.path().join(SERVER_FILE)).expect("server");
        assert_eq!(names, ["*.localhost", "localhost", "shop.example"]);
        assert!(Tls::open(sources).is_ok());
    }

    #[test]
    fn what_is_near_its_end_or_lost_is_made_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let data_dir = DataDir::open(folder.path()).expect("data folder");
        certificate_for(&data_dir, LISTEN, &[]).expect("made");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let (ca, server) = (read(CA_FILE), read(SERVER_FILE));
        std::fs::remove_file(folder.path().join(SERVER_KEY_FILE)).expect("removed");
        certificate_for(&data_dir, LISTEN, &[]).expect("made");
        assert_eq!(read(CA_FILE), ca);
        assert_ne!(read(SERVER_FILE), server);
        // In nine years and a day.
        let later = SystemTime::now() + DAY * (CA_DAYS - CA_RENEW_DAYS + 1);
        assert!(authority(&data_dir, later).expect("made").1);
        assert_ne!(read(CA_FILE), ca);
        std::fs::write(folder.path().join(CA_KEY_FILE), "no key").expect("written");
        let error = certificate_for(&data_dir, LISTEN, &[]).expect_err("no key").to_string();
        assert!(error.contains("ca.key") && !error.contains("no key"), "{error}");
    }
}
