//! Connecting: endpoints, TLS, and a pool that reconnects.

use crate::h2::{Conn, RpcError, UNAVAILABLE};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;

pub(crate) struct Endpoints {
    addrs: Vec<String>,
    tls: Option<Arc<rustls::ClientConfig>>,
    next: AtomicUsize,
}

impl Endpoints {
    pub(crate) fn new(
        list: &[String],
        cacert: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, String> {
        let mut https = cacert.is_some();
        let mut addrs = Vec::new();
        for e in list {
            let bare = e.strip_prefix("http://").unwrap_or(e);
            let (addr, secure) = match bare.strip_prefix("https://") {
                Some(a) => (a, true),
                None => (bare, false),
            };
            https |= secure;
            addrs.push(addr.trim_end_matches('/').to_string());
        }
        let tls = if https { Some(Arc::new(client_config(cacert, identity)?)) } else { None };
        Ok(Endpoints { addrs, tls, next: AtomicUsize::new(0) })
    }

    async fn connect(&self) -> Result<Conn, RpcError> {
        let addr = &self.addrs[self.next.fetch_add(1, Ordering::Relaxed) % self.addrs.len()];
        let fail = |e: std::io::Error| RpcError::new(UNAVAILABLE, format!("{addr}: {e}"));
        let tcp = TcpStream::connect(addr).await.map_err(fail)?;
        tcp.set_nodelay(true).map_err(fail)?;
        let Some(config) = &self.tls else {
            return Ok(Conn::start(Box::new(tcp), addr, false));
        };
        let host = addr.rsplit_once(':').map_or(&**addr, |(h, _)| h).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_string())
            .map_err(|e| RpcError::new(UNAVAILABLE, format!("{addr}: {e}")))?;
        let tls = tokio_rustls::TlsConnector::from(config.clone());
        let io = tls.connect(name, tcp).await.map_err(fail)?;
        Ok(Conn::start(Box::new(io), addr, true))
    }
}

fn client_config(
    cacert: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<rustls::ClientConfig, String> {
    let cacert = cacert.ok_or("https endpoints need --cacert")?;
    let certs = |p: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_file_iter(p)
            .and_then(Iterator::collect)
            .map_err(|e| format!("{}: {e}", p.display()))
    };
    let mut roots = RootCertStore::empty();
    for c in certs(cacert)? {
        roots.add(c).map_err(|e| format!("{}: {e}", cacert.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let k = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
            builder.with_client_auth_cert(certs(cert)?, k).map_err(|e| e.to_string())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The connections of one thread.
pub(crate) struct Pool {
    endpoints: Arc<Endpoints>,
    slots: Vec<RefCell<Option<Conn>>>,
}

impl Pool {
    pub(crate) async fn connect(endpoints: Arc<Endpoints>, n: usize) -> Result<Pool, RpcError> {
        let mut slots = Vec::with_capacity(n);
        for _ in 0..n.max(1) {
            slots.push(RefCell::new(Some(endpoints.connect().await?)));
        }
        Ok(Pool { endpoints, slots })
    }

    /// The `i`th connection (modulo the pool's size), remade if it has failed.
    pub(crate) async fn get(&self, i: usize) -> Result<Conn, RpcError> {
        let slot = &self.slots[i % self.slots.len()];
        if let Some(c) = &*slot.borrow()
            && !c.is_closed()
        {
            return Ok(c.clone());
        }
        let fresh = self.endpoints.connect().await?;
        let mut slot = slot.borrow_mut();
        // Another caller may have reconnected while this one was.
        match &*slot {
            Some(c) if !c.is_closed() => {
                fresh.close();
                Ok(c.clone())
            }
            _ => {
                *slot = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    pub(crate) fn for_each(&self, f: impl Fn(&Conn)) {
        for s in &self.slots {
            if let Some(c) = &*s.borrow() {
                f(c);
            }
        }
    }
}
