//! TLS towards origins: rustls over aws-lc-rs, the public roots and a zone's own, and what is offered by ALPN.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{UpstreamConfig, UpstreamConfigError, UpstreamProtocol};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// The settings of the handshake, for requests that may go over any protocol, and for those that need HTTP/1.1.
pub(super) struct Tls {
    pub(super) any: Arc<ClientConfig>,
    pub(super) http1: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, UpstreamConfigError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = |error: rustls::Error| UpstreamConfigError::Tls { why: error.to_string() };
        let verifier: Arc<dyn ServerCertVerifier> = if config.verify {
            WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots(config.ca_pem.as_deref())?),
                Arc::clone(&provider),
            )
            .build()
            .map_err(|error| UpstreamConfigError::Ca { why: error.to_string() })?
        } else {
            Arc::new(AnyCertificate(Arc::clone(&provider)))
        };
        let base = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let offering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let any = match config.protocol {
            UpstreamProtocol::Auto => offering(&[HTTP2, HTTP1]),
            UpstreamProtocol::Http1 => offering(&[HTTP1]),
            UpstreamProtocol::Http2 => offering(&[HTTP2]),
        };
        Ok(Self { any, http1: offering(&[HTTP1]) })
    }
}

/// Whether a handshake agreed on HTTP/2.
pub(super) fn is_http2(alpn: Option<&[u8]>) -> bool {
    alpn == Some(HTTP2)
}

/// The name to ask for and to check the certificate against.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, UpstreamConfigError> {
    ServerName::try_from(name.to_owned()).map_err(|_| UpstreamConfigError::ServerName { name: name.to_owned() })
}

fn roots(ca_pem: Option<&str>) -> Result<RootCertStore, UpstreamConfigError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(pem) = ca_pem else { return Ok(roots) };
    let wrong = |why: String| UpstreamConfigError::Ca { why };
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        added += 1;
    }
    if added == 0 { Err(wrong("there is no certificate in them".to_owned())) } else { Ok(roots) }
}

/// Takes any certificate, for zones that say so. The handshake's signature is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
