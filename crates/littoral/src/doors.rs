//! The doors of a role from its settings: a plain listener, perhaps one for TLS with its certificates, and the proxies in
//! front that are believed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;
use net::{CertificateError, CertificateSources, Door, Doors, Tls};
use serde::Deserialize;

use crate::assembly::Process;
use crate::cli::error::CliError;
use crate::config::Threads;

/// Networks of proxies that one listener may have.
const MAX_PROXIES: usize = 100;

/// The flags about doors.
#[derive(Debug, Clone, Default, Args)]
pub struct DoorArgs {
    /// Address to speak TLS on, beside --listen; needs certificates
    #[arg(long, value_name = "IP:PORT")]
    pub tls_listen: Option<SocketAddr>,
    /// Certificate chain (PEM) for clients that ask for no other name; read again when it changes
    #[arg(long, value_name = "FILE", requires = "key", requires = "tls_listen")]
    pub cert: Option<PathBuf>,
    /// Private key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Folder of certificates, NAME.crt with NAME.key (and NAME.ocsp, if there is one), chosen by the name that a client asks for
    #[arg(long, value_name = "FOLDER", requires = "tls_listen")]
    pub certs: Option<PathBuf>,
    /// Proxies whose connections begin with a PROXY header, version 1 or 2 (repeatable, or with commas)
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub proxy_protocol_from: Vec<IpNet>,
}

/// `tls = { … }` of a role in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Where it speaks TLS.
    pub listen: SocketAddr,
    /// The chain of the default certificate; with `key`.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// A folder of certificates.
    pub certs: Option<PathBuf>,
}

impl DoorArgs {
    /// What a file would say.
    pub fn section(&self) -> Option<TlsSection> {
        let listen = self.tls_listen?;
        let (cert, key, certs) = (self.cert.clone(), self.key.clone(), self.certs.clone());
        Some(TlsSection { listen, cert, key, certs })
    }
}

/// What was opened.
pub struct Opened {
    /// For the role.
    pub doors: Doors,
    /// Where it speaks TLS.
    pub tls_address: Option<SocketAddr>,
}

/// Binds and opens the doors of a role; its certificates are watched by `process`.
///
/// # Errors
/// An address that is in use, certificates that cannot be served, too many networks.
pub async fn open(
    listen: SocketAddr,
    threads: Option<Threads>,
    tls: Option<&TlsSection>,
    proxies: &[IpNet],
    process: &mut Process,
) -> Result<Opened, CliError> {
    if proxies.len() > MAX_PROXIES {
        return Err(CliError::usage(format!("{} networks of proxies; at most {MAX_PROXIES} are taken", proxies.len())));
    }
    let proxies: Arc<[IpNet]> = proxies.into();
    // Certificates first: what is wrong with them is known before anything listens.
    let opened = tls.map(|tls| Tls::open(sources(tls)?).map_err(certificate_error)).transpose()?;
    let mut doors =
        vec![(process.listen("plain", listen, threads).await?, Door { tls: None, proxies: Arc::clone(&proxies) })];
    let mut tls_address = None;
    if let (Some(section), Some(tls)) = (tls, opened) {
        let listener = process.listen("tls", section.listen, threads).await?;
        tls_address = Some(listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?);
        process.watch(&tls);
        doors.push((listener, Door { tls: Some(tls), proxies }));
    }
    Ok(Opened { doors: Doors(doors), tls_address })
}

fn sources(tls: &TlsSection) -> Result<CertificateSources, CliError> {
    let default = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(CliError::usage("a certificate and its key go together: name both, --cert and --key")),
    };
    Ok(CertificateSources { default, folder: tls.certs.clone() })
}

pub(crate) fn certificate_error(error: CertificateError) -> CliError {
    match error {
        CertificateError::None => CliError::usage("there is no certificate to speak TLS with")
            .with_hint("name one with --cert and --key, or a folder of NAME.crt and NAME.key with --certs"),
        error => CliError::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DoorArgs,
    }

    fn parsed(line: &str) -> Result<DoorArgs, String> {
        let line = std::iter::once("edge").chain(line.split_whitespace());
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_that_need_each_other() {
        let args =
            parsed("--tls-listen 127.0.0.1:1 --cert a --key b --certs c --proxy-protocol-from 10.0.0.0/8,::1/128");
        let args = args.expect("good");
        let section = args.section().expect("TLS");
        assert_eq!((section.cert, section.certs), (Some("a".into()), Some("c".into())));
        assert_eq!(args.proxy_protocol_from.len(), 2);
        assert_eq!(parsed("").expect("nothing").section(), None);
        for (line, expected) in [
            ("--tls-listen 127.0.0.1:1 --cert a", "--key"),
            ("--tls-listen 127.0.0.1:1 --key a", "--cert"),
            ("--cert a --key b", "--tls-listen"),
            ("--certs a", "--tls-listen"),
            ("--proxy-protocol-from 10.0.0.1", "--proxy-protocol-from"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_said() {
        let listen = "127.0.0.1:0".parse().expect("address");
        let section = TlsSection { listen, cert: None, key: None, certs: None };
        let nothing =
            open(listen, None, Some(&section), &[], &mut Process::default()).await.err().expect("no certificate");
        assert!(nothing.report(false).contains("--certs"), "{}", nothing.report(false));
        let half = TlsSection { cert: Some("a".into()), ..section.clone() };
        let half = open(listen, None, Some(&half), &[], &mut Process::default()).await.err().expect("no key");
        assert!(half.to_string().contains("--key"));
        let absent = TlsSection { certs: Some("/nowhere/at/all".into()), ..section };
        let absent = open(listen, None, Some(&absent), &[], &mut Process::default()).await.err().expect("no folder");
        assert!(absent.to_string().contains("/nowhere/at/all"));
        let networks = vec!["10.0.0.0/8".parse().expect("network"); MAX_PROXIES + 1];
        assert!(open(listen, None, None, &networks[1..], &mut Process::default()).await.is_ok());
        assert!(open(listen, None, None, &networks, &mut Process::default()).await.is_err());
    }
}
