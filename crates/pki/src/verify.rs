//! Who is trusted: chains are checked by webpki, with what Go takes and webpki does not.
//!
//! - A certificate that is itself in the trusted bundle is trusted, even if it is a CA's: `openssl req -x509` makes
//!   such certificates, and many a test cluster has nothing else.
//! - An empty bundle trusts nobody; rustls would refuse to build a verifier.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::leaf::{self, Leaf};

/// Trusted certificates.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: Arc<Vec<CertificateDer<'static>>>,
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// Trusts these. What webpki cannot read can still be trusted as itself.
    pub fn new(bundle: Vec<CertificateDer<'static>>) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(bundle.iter().cloned());
        Trust { bundle: Arc::new(bundle), roots: Arc::new(roots) }
    }

    /// Whether this very certificate is trusted, and valid now.
    fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        self.bundle.iter().any(|trusted| trusted.as_ref() == certificate.as_ref())
            && leaf::is_in_time(certificate, now.as_secs())
    }
}

/// Whom a certificate must name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// One of these common names, if there are any.
    pub common_names: Vec<String>,
    /// One of these hosts, if there are any.
    pub hosts: Vec<String>,
}

impl Allowed {
    fn admits(&self, leaf: &Leaf) -> bool {
        (self.common_names.is_empty() || self.common_names.contains(&leaf.common_name))
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| leaf.check_host(host).is_ok()))
    }
}

thread_local! {
    static NOT_ALLOWED: RefCell<Option<Leaf>> = const { RefCell::new(None) };
}

/// The certificate that the last handshake step of this thread refused though its chain is good: rustls does not keep
/// what it refuses, and log lines name it.
pub fn take_not_allowed() -> Option<Leaf> {
    NOT_ALLOWED.take()
}

/// Checks certificates of clients.
#[derive(Debug)]
pub struct ClientVerifier {
    trust: Trust,
    inner: Option<Arc<dyn ClientCertVerifier>>,
    allowed: Allowed,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// Demands a certificate that leads to `trust` and that `allowed` admits.
    pub fn new(trust: Trust, allowed: Allowed, hints: bool, provider: Arc<CryptoProvider>) -> ClientVerifier {
        let mut builder = WebPkiClientVerifier::builder_with_provider(trust.roots.clone(), provider.clone());
        if !hints {
            builder = builder.clear_root_hint_subjects();
        }
        ClientVerifier { inner: builder.build().ok(), trust, allowed, provider }
    }

    fn check_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.trust.has(end_entity, now) {
            return Ok(());
        }
        let Some(inner) = &self.inner else { return Err(CertificateError::UnknownIssuer.into()) };
        inner.verify_client_cert(end_entity, intermediates, now).map(drop)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.as_ref().map_or(&[], |inner| inner.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_chain(end_entity, intermediates, now)?;
        let leaf = Leaf::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self.allowed.admits(&leaf) {
            return Ok(ClientCertVerified::assertion());
        }
        NOT_ALLOWED.set(Some(leaf));
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks certificates of servers.
#[derive(Debug)]
pub struct ServerVerifier {
    /// `None`: any certificate will do; signatures are looked at all the same.
    trust: Option<(Trust, Option<Arc<WebPkiServerVerifier>>)>,
    allowed: Allowed,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// Demands a certificate that leads to `trust`, names the server, and is admitted by `allowed`.
    pub fn new(trust: Trust, allowed: Allowed, provider: Arc<CryptoProvider>) -> ServerVerifier {
        let inner = WebPkiServerVerifier::builder_with_provider(trust.roots.clone(), provider.clone()).build().ok();
        ServerVerifier { trust: Some((trust, inner)), allowed, provider }
    }

    /// Takes any certificate.
    pub fn any(provider: Arc<CryptoProvider>) -> ServerVerifier {
        ServerVerifier { trust: None, allowed: Allowed::default(), provider }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((trust, inner)) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let leaf = Leaf::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        if trust.has(end_entity, now) {
            let names = leaf.dns_names.iter().map(|name| format!("DnsName(\"{name}\")"));
            let presented = names.chain(leaf.addresses.iter().map(|address| format!("IpAddress({address})"))).collect();
            leaf.check_host(&server_name.to_str()).map_err(|_| CertificateError::NotValidForNameContext {
                expected: server_name.to_owned(),
                presented,
            })?;
        } else {
            let inner = inner.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        match self.allowed.admits(&leaf) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
