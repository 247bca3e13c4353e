//! The dialling side: connections to other members.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pki::files::Stamp;
use pki::suites::Policy;
use pki::verify::ServerVerifier;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{allowed, check_client_pair, pair, trust};
use crate::config::security::Security;

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct ClientTls {
    inner: Arc<Inner>,
    /// Checked instead of the host that is dialled.
    server_name: Option<Arc<str>>,
}

struct Inner {
    security: Security,
    policy: Policy,
    current: Mutex<(Stamp, Arc<ClientConfig>)>,
}

impl ClientTls {
    /// Reads the files; the error is Go's text.
    pub(crate) fn new(security: &Security, policy: &Policy) -> Result<ClientTls, String> {
        let current = Mutex::new((stamp(security), Arc::new(build(security, policy)?)));
        let inner = Arc::new(Inner { security: security.clone(), policy: policy.clone(), current });
        Ok(ClientTls { inner, server_name: None })
    }

    /// The same for servers whose certificates name this host, whichever is dialled.
    pub(crate) fn checking(&self, host: &str) -> ClientTls {
        ClientTls { inner: self.inner.clone(), server_name: Some(host.into()) }
    }

    /// Without any file.
    #[cfg(test)]
    pub(crate) fn for_tests() -> ClientTls {
        ClientTls::new(&Security::default(), &Policy::default()).unwrap()
    }

    /// Shakes hands with the server at `host`; the error is Go's text.
    pub(crate) async fn connect<S>(&self, host: &str, io: S) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(host.to_string()).map_err(|_| format!("tls: invalid server name {host:?}"))?;
        let handshake = TlsConnector::from(self.config()).connect(name, io);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => pki::text::of(error),
                None if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".into(),
                None => crate::start::system_words(&error),
            }),
            Err(_) => Err("net/http: TLS handshake timeout".into()),
        }
    }

    /// The settings of the next handshake. While changed files cannot be used, those before stay in force: the
    /// listening side, which has the same files, says so.
    fn config(&self) -> Arc<ClientConfig> {
        let Inner { security, policy, current } = &*self.inner;
        let stamp = stamp(security);
        let mut current = current.lock();
        if current.0 != stamp
            && let Ok(config) = build(security, policy)
        {
            *current = (stamp, Arc::new(config));
        }
        current.1.clone()
    }
}

fn stamp(security: &Security) -> Stamp {
    let Security { cert, key, client_cert, client_key, trusted_ca, .. } = security;
    Stamp::of([cert.as_str(), key, client_cert, client_key, trusted_ca])
}

fn build(security: &Security, policy: &Policy) -> Result<ClientConfig, String> {
    let provider = policy.provider()?;
    let own = match check_client_pair(security)? {
        Some(own) => Some(own),
        None if security.is_empty() => None,
        None => Some(pair(security)?),
    };
    let verifier = if security.is_self_signed {
        ServerVerifier::any(provider.clone())
    } else {
        ServerVerifier::new(trust(security)?, allowed(security)?, provider.clone())
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&policy.versions())
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    })
}
