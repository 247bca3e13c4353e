//! TLS settings as files and switches, turned into rustls' form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::Error;

/// Where certificates are and how much is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Certificates that are trusted; the system's when there is none.
    pub ca: Option<PathBuf>,
    /// The client's own certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Take any certificate of the server.
    pub skip_verify: bool,
    /// The name to check instead of the endpoint's host.
    pub server_name: Option<String>,
}

/// Bundles of trusted certificates of common systems.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Settings {
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Config(error.to_string()))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAny(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                if chain.is_empty() {
                    let text = "tls: failed to find any PEM data in certificate input";
                    return Err(Error::Config(text.into()));
                }
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
                    rustls::pki_types::pem::Error::NoItemsFound => {
                        Error::Config("tls: failed to find any PEM data in key input".into())
                    }
                    error => unreadable(key, &error),
                })?;
                builder
                    .with_client_auth_cert(chain, key_der)
                    .map_err(|error| Error::Config(crate::tls_text::of(&error)))?
            }
            (None, None) => builder.with_no_client_auth(),
            (cert, key) => {
                let show = |path: &Option<PathBuf>| path.as_deref().map(Path::display).map(|d| d.to_string());
                return Err(Error::Config(format!(
                    "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                    show(key).unwrap_or_default(),
                    show(cert).unwrap_or_default()
                )));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
            }
            return Ok(roots);
        }
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let bundles = named.into_iter().chain(SYSTEM_BUNDLES.iter().map(PathBuf::from));
        if let Some(bundle) = bundles.into_iter().find_map(|file| certificates(&file).ok()) {
            // A system's bundle may hold certificates that rustls does not take: the others still count.
            roots.add_parsable_certificates(bundle);
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    read().map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    match error {
        rustls::pki_types::pem::Error::Io(error) => {
            Error::Config(format!("open {}: {}", file.display(), crate::connection::io_text(error)))
        }
        other => Error::Config(format!("{}: {other}", file.display())),
    }
}

/// For `--insecure-skip-tls-verify`: the name and the chain are not looked at, signatures still are.
#[derive(Debug)]
struct TrustAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
