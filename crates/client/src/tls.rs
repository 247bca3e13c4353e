//! TLS settings as files and switches, turned into rustls' form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pki::files;
use pki::verify::{Allowed, ServerVerifier, Trust};
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

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

impl Settings {
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = pki::provider();
        let verifier = if self.skip_verify {
            ServerVerifier::any(provider.clone())
        } else {
            ServerVerifier::new(self.trust().map_err(Error::Config)?, Allowed::default(), provider.clone())
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Config(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let show = |path: &Option<PathBuf>| path.as_deref().map(Path::display).map(|d| d.to_string()).unwrap_or_default();
        let (cert, key) = (show(&self.cert), show(&self.key));
        let mut config = match (&self.cert, &self.key) {
            (Some(_), Some(_)) => {
                let pair = files::pair(&cert, &key).map_err(Error::Config)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
            (None, None) => builder.with_no_client_auth(),
            _ => {
                return Err(Error::Config(format!(
                    "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
                )));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn trust(&self) -> Result<Trust, String> {
        Ok(Trust::new(match &self.ca {
            Some(file) => files::bundle(&file.display().to_string())?,
            None => files::system_bundle(),
        }))
    }
}
