//! Who is trusted: chains are checked by webpki, with what Go takes and webpki does not.
//!
//! - A certificate that is itself in the trusted bundle is trusted, even if it is a CA's: `openssl req -x509` makes
//!   such certificates, and many a test cluster has nothing else.
//! - One that a trusted authority has signed itself may be of version 1, or a CA's.
//! - An empty bundle trusts nobody; rustls would refuse to build a verifier.
//!
//! And one thing the other way: an authority whose own time is over is trusted no more, as in Go.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::parse_x509_certificate;

use crate::direct::{self, Use};
use crate::leaf::{self, Leaf};

/// Trusted certificates.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: Arc<Vec<CertificateDer<'static>>>,
    roots: Arc<RootCertStore>,
    /// Subject of each certificate of the bundle, and from when to when it is valid.
    times: Arc<Vec<(Vec<u8>, i64, i64)>>,
}

impl Trust {
    /// Trusts these. What webpki cannot read can still be trusted as itself.
    pub fn new(bundle: Vec<CertificateDer<'static>>) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(bundle.iter().cloned());
        let read = bundle.iter().filter_map(|der| parse_x509_certificate(der).ok());
        let times = read.map(|(_, certificate)| {
            let validity = certificate.validity();
            let subject = certificate.subject().as_raw().to_vec();
            (subject, validity.not_before.timestamp(), validity.not_after.timestamp())
        });
        Trust { times: Arc::new(times.collect()), bundle: Arc::new(bundle), roots: Arc::new(roots) }
    }

    /// Whether this very certificate is trusted, and valid now.
    fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        self.bundle.iter().any(|trusted| trusted.as_ref() == certificate.as_ref())
            && leaf::is_in_time(certificate, now.as_secs())
    }

    /// Whether the authority that a good chain leads to is itself within its time, at which webpki does not look.
    fn check_time<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut expired = None;
        for der in chain {
            let Ok((_, certificate)) = parse_x509_certificate(der) else { continue };
            for (_, from, to) in self.times.iter().filter(|(subject, ..)| subject == certificate.issuer().as_raw()) {
                if (*from..=*to).contains(&seconds) {
                    return Ok(());
                }
                expired = Some(*to);
            }
        }
        let Some(not_after) = expired else { return Ok(()) };
        let not_after = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(not_after).unwrap_or(0)));
        Err(CertificateError::ExpiredContext { time: now, not_after })
    }
}

/// Whether webpki refuses a certificate for what it is, not for who has signed it.
fn is_unusual(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::BadEncoding))
}

/// How webpki checks a signature of the handshake: differs by the version of TLS.
type Verify = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error>;

/// Checks a signature of the handshake, by whatever kind of certificate.
fn signature(
    verify: Verify,
    message: &[u8],
    cert: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    match verify(message, cert, signed, algorithms) {
        Err(error) if is_unusual(&error) => {
            match direct::has_signed(cert, signed.scheme, message, signed.signature(), algorithms) {
                true => Ok(HandshakeSignatureValid::assertion()),
                false => Err(error),
            }
        }
        result => result,
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
        match inner.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => {}
            Err(error) if is_unusual(&error) => {
                let algorithms = &self.provider.signature_verification_algorithms;
                direct::check(end_entity, &self.trust.bundle, Use::Client, now, algorithms)?;
            }
            Err(error) => return Err(error),
        }
        Ok(self.trust.check_time(std::iter::once(end_entity).chain(intermediates), now)?)
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
        signature(verify_tls12_signature, message, cert, signed, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(verify_tls13_signature, message, cert, signed, &self.provider)
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

/// Whether a certificate names a server, with webpki's error.
fn check_name(leaf: &Leaf, server_name: &ServerName<'_>) -> Result<(), CertificateError> {
    let names = leaf.dns_names.iter().map(|name| format!("DnsName(\"{name}\")"));
    let presented = names.chain(leaf.addresses.iter().map(|address| format!("IpAddress({address})"))).collect();
    leaf.check_host(&server_name.to_str())
        .map_err(|_| CertificateError::NotValidForNameContext { expected: server_name.to_owned(), presented })
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
            check_name(&leaf, server_name)?;
        } else {
            let inner = inner.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                Ok(_) => {}
                Err(error) if is_unusual(&error) => {
                    let algorithms = &self.provider.signature_verification_algorithms;
                    direct::check(end_entity, &trust.bundle, Use::Server, now, algorithms)?;
                    check_name(&leaf, server_name)?;
                }
                Err(error) => return Err(error),
            }
            trust.check_time(std::iter::once(end_entity).chain(intermediates), now)?;
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
        signature(verify_tls12_signature, message, cert, signed, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(verify_tls13_signature, message, cert, signed, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
