//! TLS of listeners and of connections to other members, from the files that the user named.
//!
//! Nothing is resumed and nothing is remembered: each handshake is made with the files as they are then, which is how
//! certificates, authorities and lists of revoked certificates are replaced without a restart.
//!
//! Reading order: this file (what is asked for, and what is wrong with it), `server.rs` and its `gate.rs` and
//! `address.rs`, `client.rs`.

mod address;
mod client;
mod gate;
mod server;

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::files;
use pki::suites::Policy;
use pki::verify::{Allowed, Trust};
use rustls::sign::CertifiedKey;

use crate::config::security::{self, Security};
use crate::config::value::{self, Address};
use crate::config::Config;
use crate::logging::Logger;
use crate::start::system_words;

pub(crate) use client::ClientTls;
use server::Purpose;
pub(crate) use server::ServerTls;

/// A year of `--self-signed-cert-validity`.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// TLS for peers: for the listeners, if any of them wants it, and for connections to others.
pub(crate) struct PeerTls {
    pub(crate) listening: Option<ServerTls>,
    pub(crate) dialling: ClientTls,
}

/// TLS for clients: for listeners of clients and of metrics, as far as any of them wants it.
pub(crate) struct ServedTls {
    pub(crate) clients: Option<ServerTls>,
    pub(crate) metrics: Option<ServerTls>,
    /// What the line about it says, when there is a certificate.
    pub(crate) info: Option<String>,
}

/// Sets up TLS for peers, with etcd's lines; the error is its text.
pub(crate) fn for_peers(config: &Config, logger: &Logger) -> Result<PeerTls, String> {
    let policy = policy(config, logger)?;
    let mut security = Security::of_peers(&config.raw);
    if security.is_automatic {
        make_own("peer", &mut security, &config.listen_peer, config, logger);
    }
    if !security.is_empty() {
        say_starting("starting with peer TLS", &security.to_string(), config, logger);
    }
    for url in config.listen_peer.iter().filter(|url| url.scheme == "http") {
        if !security.is_empty() {
            logger.warn(
                "scheme is HTTP while key and cert files are present; ignoring key and cert files",
                &[("peer-url", url.to_string().into())],
            );
        }
        if security.client_cert_auth {
            logger.warn(
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL",
                &[("peer-url", url.to_string().into())],
            );
        }
    }
    let listening = match config.listen_peer.iter().find(|url| url.is_secure()) {
        Some(url) if security.is_empty() => {
            return Err(format!("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.host));
        }
        Some(_) => Some(ServerTls::new(Purpose::Peers, &security, &policy, logger)?),
        None => None,
    };
    Ok(PeerTls { listening, dialling: ClientTls::new(&security, &policy)? })
}

/// Sets up TLS for clients, with etcd's lines; the error is its text.
pub(crate) fn for_clients(config: &Config, logger: &Logger) -> Result<ServedTls, String> {
    let policy = security::policy(&config.raw);
    let mut security = Security::of_clients(&config.raw);
    let urls: Vec<&Address> = config.listen_client.iter().chain(&config.listen_client_http).collect();
    if security.is_automatic {
        make_own("client", &mut security, urls.iter().copied(), config, logger);
    }
    for url in &urls {
        if url.is_secure() && security.is_empty() {
            return Err(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            ));
        }
        say_ignored(url, &security, logger);
    }
    if security.is_empty() && config.listen_metrics.iter().any(Address::is_secure) {
        return Err("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url".into());
    }
    let build = |purpose: Purpose, is_wanted: bool| -> Result<Option<ServerTls>, String> {
        is_wanted.then(|| ServerTls::new(purpose, &security, &policy, logger)).transpose()
    };
    let clients = build(Purpose::Clients, urls.iter().any(|url| url.is_secure()))
        .and_then(|tls| if tls.is_some() { policy.check_http2().map(|()| tls) } else { Ok(tls) });
    match clients {
        Ok(clients) => Ok(ServedTls {
            clients,
            metrics: build(Purpose::Metrics, config.listen_metrics.iter().any(Address::is_secure))?,
            info: (!security.is_empty()).then(|| security.to_string()),
        }),
        // etcd notices only when it is about to serve, and calls that by another name.
        Err(error) => {
            say_starting("starting with client TLS", &security.to_string(), config, logger);
            logger.fatal("listener failed", &[("error", error.into())])
        }
    }
}

fn say_ignored(url: &Address, security: &Security, logger: &Logger) {
    if url.is_secure() {
        return;
    }
    if !security.is_empty() {
        logger.warn(
            "scheme is http or unix while key and cert files are present; ignoring key and cert files",
            &[("client-url", url.to_string().into())],
        );
    }
    if security.client_cert_auth {
        logger.warn(
            "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL",
            &[("client-url", url.to_string().into())],
        );
    }
}

/// The line about a certificate that is in use.
pub(crate) fn say_starting(text: &str, info: &str, config: &Config, logger: &Logger) {
    let suites = security::policy(&config.raw).suites;
    logger.info(text, &[("tls-info", info.into()), ("cipher-suites", suites.into())]);
}

fn policy(config: &Config, logger: &Logger) -> Result<Policy, String> {
    let policy = security::policy(&config.raw);
    policy.check()?;
    let missing = policy.missing();
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().map(str::to_string).collect();
        logger.warn(
            "cipher suites without forward secrecy or authenticated encryption are not available; ignoring them",
            &[("cipher-suites", missing.into())],
        );
    }
    Ok(policy)
}

/// A certificate of this member's own, made at the first start and used again after that.
fn make_own<'a>(
    side: &str,
    security: &mut Security,
    urls: impl IntoIterator<Item = &'a Address>,
    config: &Config,
    logger: &Logger,
) {
    if !security.is_empty() {
        logger.warn(&format!("ignoring {side} auto TLS since certs given"), &[]);
        return;
    }
    let hosts: Vec<&str> = urls.into_iter().map(|url| url.host.as_str()).collect();
    let dir = config.data_dir.join("fixtures").join(side);
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    if let Err(error) = write_own(&dir, (&cert, &key), &hosts, side == "peer", config, logger) {
        logger.warn("cannot generate cert", &[("error", (&error).into())]);
        logger.fatal(&format!("failed to get {side} self-signed certs"), &[("error", error.into())]);
    }
    (security.client_cert, security.client_key) = (cert.clone(), key.clone());
    (security.cert, security.key) = (cert, key);
    security.is_self_signed = true;
}

fn write_own(
    dir: &std::path::Path,
    (cert, key): (&str, &str),
    hosts: &[&str],
    also_client: bool,
    config: &Config,
    logger: &Logger,
) -> Result<(), String> {
    let years = value::parse_uint(config.raw.text("self-signed-cert-validity"), u64::from(u32::MAX)).unwrap_or(1);
    // A century is as good as for ever, and later years have no form in certificates.
    let years = u32::try_from(years.min(100)).unwrap_or(100);
    if years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".into());
    }
    let failed = |path: &str, error: &std::io::Error| format!("open {path}: {}", system_words(error));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed(&dir.display().to_string(), &error))?;
    if std::path::Path::new(cert).exists() && std::path::Path::new(key).exists() {
        return Ok(());
    }
    let (now, validity) = (SystemTime::now(), YEAR * years);
    let until = now + validity;
    let nanos = until.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    logger.warn(
        "automatically generate certificates",
        &[("certificate-validity-bound-not-after", logger.time(nanos).into())],
    );
    let own = pki::own::make(hosts, now, validity, also_client)?;
    let write = |path: &str, mode: u32, text: &str| {
        let file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path);
        file.and_then(|mut file| {
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| failed(path, &error))
    };
    write(cert, 0o644, &own.certificate)?;
    logger.info("created cert file", &[("path", cert.into())]);
    write(key, 0o600, &own.key)?;
    logger.info("created key file", &[("path", key.into())]);
    Ok(())
}

/// The certificate and its key.
fn pair(security: &Security) -> Result<Arc<CertifiedKey>, String> {
    let Security { cert, key, .. } = security;
    if cert.is_empty() || key.is_empty() {
        return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
    }
    files::pair(cert, key)
}

/// The certificate for connections to others, if that is another one.
fn check_client_pair(security: &Security) -> Result<Option<Arc<CertifiedKey>>, String> {
    let Security { client_cert: cert, client_key: key, .. } = security;
    match (cert.is_empty(), key.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => files::pair(cert, key).map(Some),
        _ => Err(format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
        )),
    }
}

/// Whom certificates must name.
fn allowed(security: &Security) -> Result<Allowed, String> {
    let (common_names, hosts) = (security.allowed_common_names.clone(), security.allowed_hostnames.clone());
    if !common_names.is_empty() && !hosts.is_empty() {
        let quoted = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" ");
        return Err(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
            quoted(&common_names),
            quoted(&hosts)
        ));
    }
    Ok(Allowed { common_names, hosts })
}

/// Whose signature is trusted: the named bundle's, else what the system trusts.
fn trust(security: &Security) -> Result<Trust, String> {
    Ok(Trust::new(match security.trusted_ca.as_str() {
        "" => files::system_bundle(),
        path => files::bundle(path)?,
    }))
}
