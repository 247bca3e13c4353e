//! Binding the addresses of listen URLs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixListener;

use crate::config::Config;
use crate::config::value::Address;
use crate::net::enter::Serves;
use crate::start::system_words;
use crate::tls::{ServedTls, ServerTls};

/// A bound socket that does not block.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Options of listening sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) reuse_port: bool,
    pub(crate) reuse_address: bool,
}

/// How a client's connection goes on.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) serves: Serves,
    /// Served without TLS.
    pub(crate) in_clear: bool,
    /// Served through TLS. With both, the first byte tells which it is.
    pub(crate) tls: Option<ServerTls>,
}

/// A listener for peers or for metrics.
pub(crate) struct Guarded {
    pub(crate) listener: Listener,
    /// Served through TLS.
    pub(crate) tls: Option<ServerTls>,
}

/// A listener for clients, and how their connections go on.
pub(crate) struct Entrance {
    pub(crate) listener: Listener,
    pub(crate) way: Way,
}

impl Entrance {
    /// The same for another thread to accept on.
    pub(crate) fn duplicate(&self) -> std::io::Result<Entrance> {
        let mut way = self.way.clone();
        way.tls = way.tls.as_ref().map(ServerTls::for_another);
        Ok(Entrance { listener: self.listener.duplicate()?, way })
    }
}

/// Binds the URLs for clients; several that differ only in their scheme share a socket. The error is Go's text.
pub(crate) fn bind_clients(config: &Config, options: SocketOptions, tls: &ServedTls) -> Result<Vec<Entrance>, String> {
    let apart = !config.listen_client_http.is_empty();
    let first = if apart { Serves::GrpcOnly } else { Serves::GrpcAndHttp };
    let urls = config.listen_client.iter().map(|url| (url, first));
    let urls = urls.chain(config.listen_client_http.iter().map(|url| (url, Serves::HttpOnly)));
    let mut entrances: Vec<(&str, Entrance)> = Vec::new();
    for (url, serves) in urls {
        let (in_clear, tls) = match url.is_secure() {
            true => (false, tls.clients.as_ref().map(ServerTls::for_another)),
            false => (true, None),
        };
        if let Some((_, known)) = entrances.iter_mut().find(|(host, _)| *host == url.host) {
            known.way.in_clear |= in_clear;
            known.way.tls = known.way.tls.take().or(tls);
            if known.way.serves != serves {
                known.way.serves = Serves::GrpcAndHttp;
            }
            continue;
        }
        entrances.push((&url.host, Entrance { listener: bind(url, options)?, way: Way { serves, in_clear, tls } }));
    }
    Ok(entrances.into_iter().map(|(_, entrance)| entrance).collect())
}

/// Connections that the kernel keeps ready while we do not accept.
const BACKLOG: i32 = 4096;

/// Binds one URL; the error is Go's text.
pub(crate) fn bind(url: &Address, options: SocketOptions) -> Result<Listener, String> {
    if url.is_unix() {
        return bind_unix(&url.host);
    }
    let refused = |address: &str, error: &std::io::Error| {
        format!("listen tcp {address}: bind: {}", system_words(error))
    };
    // A name is bound where it first leads to, and `localhost` is IPv4 first, as in Go.
    let mut addresses: Vec<SocketAddr> = match url.host.strip_prefix(':') {
        Some(port) => format!("[::]:{port}").to_socket_addrs(),
        None => url.host.to_socket_addrs(),
    }
    .map_err(|error| format!("listen tcp: lookup {}: {error}", url.hostname()))?
    .collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let Some(address) = addresses.first() else {
        return Err(format!("listen tcp: lookup {}: no such host", url.hostname()));
    };
    let text = address.to_string();
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(*address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .map_err(|error| refused(&text, &error))?;
    let set_up = || -> std::io::Result<()> {
        // Go sets this on every listener: a restart must not wait for old connections to fade.
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&(*address).into())?;
        socket.listen(BACKLOG)
    };
    set_up().map_err(|error| refused(&text, &error))?;
    let _same_as_default = options.reuse_address;
    Ok(Listener::Tcp(socket.into()))
}

/// Binds a socket file in the working directory or where the path says; a file left by a dead process is replaced.
fn bind_unix(path: &str) -> Result<Listener, String> {
    if std::os::unix::net::UnixStream::connect(path).is_err() && std::path::Path::new(path).exists() {
        std::fs::remove_file(path).map_err(|error| format!("remove {path}: {}", system_words(&error)))?;
    }
    let refused = |error: std::io::Error| format!("listen unix {path}: bind: {}", system_words(&error));
    let listener = UnixListener::bind(path).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(Listener::Unix(listener))
}

impl Listener {
    /// Another handle of the same socket, for another thread to accept on.
    pub(crate) fn duplicate(&self) -> std::io::Result<Listener> {
        Ok(match self {
            Listener::Tcp(listener) => Listener::Tcp(listener.try_clone()?),
            Listener::Unix(listener) => Listener::Unix(listener.try_clone()?),
        })
    }

    /// The address as log lines show it: `127.0.0.1:2379`.
    pub(crate) fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            Listener::Unix(listener) => listener
                .local_addr()
                .ok()
                .and_then(|address| address.as_pathname().map(|path| path.display().to_string()))
                .unwrap_or_else(|| "@".into()),
        }
    }
}
