//! The listening side: handshakes, with files that are read again when they change, and what is checked after them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pki::crl::Revoked;
use pki::files::{self, Stamp};
use pki::leaf::Leaf;
use pki::suites::Policy;
use pki::verify::{self, ClientVerifier};
use rustls::server::{Accepted, Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection};

use super::gate::{Gate, Pass};
use super::{address, allowed, check_client_pair, pair, trust};
use crate::config::security::Security;
use crate::logging::{Level, Logger};
use crate::net::io::{Socket, Stream};
use crate::net::session::{Session, Sink};
use crate::start::system_words;

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client that was refused may take to notice.
const LINGER: Duration = Duration::from_millis(200);
/// Most that is read from it meanwhile, in chunks.
const LINGER_READS: usize = 16;
/// Bytes read from a socket at a time.
const CHUNK_BYTES: usize = 4 << 10;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// HTTP/2 and HTTP/1.1.
    Clients,
    /// HTTP/1.1, and whoever connects must come from where its certificate says.
    Metrics,
    /// The same.
    Peers,
}

impl Purpose {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Purpose::Clients => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Purpose::Metrics | Purpose::Peers => vec![b"http/1.1".to_vec()],
        }
    }

    fn rejected(self) -> &'static str {
        match self {
            Purpose::Clients | Purpose::Metrics => "rejected connection on client endpoint",
            Purpose::Peers => "rejected connection on peer endpoint",
        }
    }
}

/// See the head of this file. Clones share everything but the count of handshakes.
#[derive(Clone)]
pub(crate) struct ServerTls {
    inner: Arc<Inner>,
    gate: Arc<Gate>,
}

struct Inner {
    purpose: Purpose,
    security: Security,
    policy: Policy,
    logger: Logger,
    current: Mutex<(Stamp, Arc<ServerConfig>)>,
    revoked: Mutex<Option<(Stamp, Arc<Revoked>)>>,
}

/// What the other side has said before anything was agreed on.
#[derive(Default)]
struct Seen {
    server_name: String,
    protocols: Vec<String>,
}

/// Why a connection is refused.
struct Refusal {
    error: String,
    /// The certificate, where its chain is good.
    leaf: Option<Leaf>,
}

impl From<String> for Refusal {
    fn from(error: String) -> Refusal {
        Refusal { error, leaf: None }
    }
}

impl ServerTls {
    /// Reads the files; the error is Go's text.
    pub(crate) fn new(
        purpose: Purpose,
        security: &Security,
        policy: &Policy,
        logger: &Logger,
    ) -> Result<ServerTls, String> {
        let stamp = stamp(security);
        let config = Arc::new(build(purpose, security, policy)?);
        let inner = Inner {
            purpose,
            security: security.clone(),
            policy: policy.clone(),
            logger: logger.clone(),
            current: Mutex::new((stamp, config)),
            revoked: Mutex::default(),
        };
        Ok(ServerTls { inner: Arc::new(inner), gate: Arc::default() })
    }

    /// The same for another listener, which counts its handshakes for itself.
    pub(crate) fn for_another(&self) -> ServerTls {
        ServerTls { inner: self.inner.clone(), gate: Arc::default() }
    }

    /// Waits until another handshake may begin. Connections wait in the kernel's queue meanwhile.
    pub(crate) async fn enter(&self) -> Pass {
        self.gate.enter().await
    }

    /// Shakes hands over a socket from which `received` was read already. `None` when that came to nothing, which has
    /// been logged.
    pub(crate) async fn accept(&self, pass: Pass, socket: Socket, received: Vec<u8>) -> Option<Stream> {
        let mut seen = Seen::default();
        let result = tokio::select! {
            result = self.shake(&socket, received, &mut seen) => result,
            () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => Err("tls: handshake timeout".to_string().into()),
            () = pass.must_give_way() => Err("tls: too many handshakes under way".to_string().into()),
        };
        match result {
            Ok(session) => Some(Stream::secure(socket, session)),
            Err(refusal) => {
                self.say_rejected(&socket, seen.server_name, refusal);
                tokio::select! { () = linger(&socket) => {}, () = pass.must_give_way() => {} }
                None
            }
        }
    }

    async fn shake(&self, socket: &Socket, received: Vec<u8>, seen: &mut Seen) -> Result<Session, Refusal> {
        let mut input = Input { socket, bytes: received, at: 0, is_begun: false };
        let accepted = hello(&mut input).await?;
        {
            let hello = accepted.client_hello();
            seen.server_name = hello.server_name().unwrap_or_default().to_string();
            let protocols = hello.alpn().into_iter().flatten();
            seen.protocols = protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        }
        let mut tls = match accepted.into_connection(self.config()) {
            Ok(tls) => tls,
            Err((error, mut alert)) => {
                let _told = alert.write_all(&mut Sink(socket));
                return Err(words(&error, seen).into());
            }
        };
        while tls.is_handshaking() {
            flush(&mut tls, socket).await?;
            if !tls.is_handshaking() {
                break;
            }
            input.more().await.map_err(|ended| ended.unwrap_or_else(|| "EOF".into()))?;
            tls.read_tls(&mut input).map_err(|error| error.to_string())?;
            if let Err(error) = tls.process_new_packets() {
                let leaf = verify::take_not_allowed();
                let _told = tls.write_tls(&mut Sink(socket));
                return Err(Refusal { error: words(&error, seen), leaf });
            }
        }
        flush(&mut tls, socket).await?;
        match self.check(socket, &tls).await {
            Ok(common_name) => Ok(Session::new(tls, input.bytes.split_off(input.at), common_name)),
            Err(refusal) => {
                tls.send_close_notify();
                let _told = tls.write_tls(&mut Sink(socket));
                Err(refusal)
            }
        }
    }

    /// What is asked of a certificate beside its chain. Returns its common name, if it has one.
    async fn check(&self, socket: &Socket, tls: &ServerConnection) -> Result<Option<String>, Refusal> {
        let Some(chain) = tls.peer_certificates() else { return Ok(None) };
        let Some(leaf) = chain.first().and_then(|der| Leaf::parse(der)) else { return Ok(None) };
        let checks_address = self.inner.purpose != Purpose::Clients && !self.inner.security.skips_address_check;
        let result = match socket.remote_address().filter(|_| checks_address) {
            Some(remote) => address::check(&leaf, remote).await,
            None => Ok(()),
        };
        let result = result.and_then(|()| self.check_revoked(chain));
        match result {
            Ok(()) => Ok(Some(leaf.common_name).filter(|name| !name.is_empty())),
            Err(error) => Err(Refusal { error, leaf: Some(leaf) }),
        }
    }

    /// As in Go, a list that cannot be read refuses everybody.
    fn check_revoked(&self, chain: &[rustls::pki_types::CertificateDer<'_>]) -> Result<(), String> {
        let path = &self.inner.security.crl;
        if path.is_empty() {
            return Ok(());
        }
        let stamp = Stamp::of([path.as_str()]);
        let mut known = self.inner.revoked.lock();
        let revoked = match &*known {
            Some((at, revoked)) if *at == stamp => revoked.clone(),
            _ => {
                *known = None;
                let revoked = Arc::new(Revoked::parse(&files::read(path)?)?);
                *known = Some((stamp, revoked.clone()));
                revoked
            }
        };
        drop(known);
        revoked.check(chain.iter().map(AsRef::as_ref))
    }

    /// The settings of the next handshake. While changed files cannot be used, those before stay in force.
    fn config(&self) -> Arc<ServerConfig> {
        let Inner { purpose, security, policy, logger, current, .. } = &*self.inner;
        let stamp = stamp(security);
        let mut current = current.lock();
        if current.0 != stamp {
            match build(*purpose, security, policy) {
                Ok(config) => *current = (stamp, Arc::new(config)),
                Err(error) => {
                    let text = match error.ends_with("no such file or directory") {
                        true => "failed to find peer cert files",
                        false => "failed to create peer certificate",
                    };
                    let files = [("cert-file", (&security.cert).into()), ("key-file", (&security.key).into())];
                    logger.warn(text, &[files[0].clone(), files[1].clone(), ("error", error.into())]);
                }
            }
        }
        current.1.clone()
    }

    fn say_rejected(&self, socket: &Socket, server_name: String, refusal: Refusal) {
        let mut fields = vec![("remote-addr", socket.remote().into()), ("server-name", server_name.into())];
        if let Some(leaf) = refusal.leaf {
            let addresses: Vec<String> = leaf.addresses.iter().map(ToString::to_string).collect();
            fields.push(("ip-addresses", addresses.into()));
            fields.push(("dns-names", leaf.dns_names.into()));
        }
        // Whoever only looks whether the port is open is nothing to warn of.
        let level = if refusal.error == "EOF" { Level::Debug } else { Level::Warn };
        fields.push(("error", refusal.error.into()));
        self.inner.logger.named("", level, self.inner.purpose.rejected(), &fields);
    }
}

/// What the files look like now.
fn stamp(security: &Security) -> Stamp {
    Stamp::of([security.cert.as_str(), &security.key, &security.trusted_ca])
}

fn build(purpose: Purpose, security: &Security, policy: &Policy) -> Result<ServerConfig, String> {
    let pair = pair(security)?;
    check_client_pair(security)?;
    let allowed = allowed(security)?;
    let provider = policy.provider()?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&policy.versions())
        .map_err(|error| error.to_string())?;
    let builder = if security.demands_certificate() {
        let hints = !security.trusted_ca.is_empty();
        builder.with_client_cert_verifier(Arc::new(ClientVerifier::new(trust(security)?, allowed, hints, provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = purpose.protocols();
    // Every connection shows its certificate: a resumed one could be of somebody who has been revoked since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Reads until the client has said hello.
async fn hello(input: &mut Input<'_>) -> Result<Accepted, String> {
    let mut acceptor = Acceptor::default();
    loop {
        input.more().await.map_err(|ended| {
            ended.unwrap_or_else(|| if input.is_begun { "unexpected EOF" } else { "EOF" }.into())
        })?;
        acceptor.read_tls(input).map_err(|error| error.to_string())?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                // Whoever does not speak TLS would not understand an alert either.
                if !matches!(error, rustls::Error::InvalidMessage(_)) {
                    let _told = alert.write_all(&mut Sink(input.socket));
                }
                return Err(pki::text::of(&error));
            }
        }
    }
}

/// Lets the other side read why it was refused: closing at once, with bytes of its own unread, would take that away.
async fn linger(socket: &Socket) {
    let mut chunk = [0; CHUNK_BYTES];
    let until_it_goes = async {
        for _ in 0..LINGER_READS {
            if socket.ready(true, false).await.is_err() || matches!(socket.read(&mut chunk), Ok(Some(0)) | Err(_)) {
                return;
            }
        }
    };
    if socket.shut_down().is_ok() {
        let _gone_or_not = tokio::time::timeout(LINGER, until_it_goes).await;
    }
}

/// Writes what a session has to say, and waits for room.
async fn flush(tls: &mut ServerConnection, socket: &Socket) -> Result<(), String> {
    while tls.wants_write() {
        match tls.write_tls(&mut Sink(socket)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.ready(false, true).await.map_err(|error| system_words(&error))?;
            }
            Err(error) => return Err(format!("write tcp {}: write: {}", socket.remote(), system_words(&error))),
        }
    }
    Ok(())
}

fn words(error: &rustls::Error, seen: &Seen) -> String {
    if matches!(error, rustls::Error::NoApplicationProtocol) {
        let names: Vec<String> = seen.protocols.iter().map(|name| format!("{name:?}")).collect();
        return format!("tls: client requested unsupported application protocols ([{}])", names.join(" "));
    }
    pki::text::of(error)
}

/// Bytes of the socket on their way to rustls.
struct Input<'a> {
    socket: &'a Socket,
    bytes: Vec<u8>,
    at: usize,
    /// Something has been received.
    is_begun: bool,
}

impl Input<'_> {
    /// Waits until there are bytes; the error is `None` when the other side has ended its stream.
    async fn more(&mut self) -> Result<(), Option<String>> {
        if self.at < self.bytes.len() {
            self.is_begun = true;
            return Ok(());
        }
        self.bytes.resize(CHUNK_BYTES, 0);
        self.at = 0;
        let read = loop {
            self.socket.ready(true, false).await.map_err(|error| Some(system_words(&error)))?;
            match self.socket.read(&mut self.bytes) {
                Ok(Some(read)) => break Ok(read),
                Ok(None) => {}
                Err(error) => break Err(format!("read tcp {}: read: {}", self.socket.remote(), system_words(&error))),
            }
        };
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(None),
            Ok(_) => {
                self.is_begun = true;
                Ok(())
            }
            Err(error) => Err(Some(error)),
        }
    }
}

impl io::Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = (self.bytes.len() - self.at).min(into.len());
        into[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
