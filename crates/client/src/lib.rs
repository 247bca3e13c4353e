//! The client side of etcd's API: endpoints and their connections, TLS, retries, auth tokens, watches, leases, locks.
//!
//! Must not know: files of a member, what a server does with a request, how results are shown.
//!
//! Everything runs on the caller's tokio runtime; a current-thread one is enough. Deadlines are given with each call
//! ([`Context`]): the one default is that there is none.
//!
//! Reading order: [`Config`] and [`Client`] (`client.rs`), one call with its retries (`call.rs`), then what a call
//! stands on: `pool.rs` (which connection), `connection.rs` (how one is made), `endpoint.rs`, `tls.rs`; then what
//! stands on calls: `watch.rs`, `lease.rs`, `concurrency.rs`. Apart from all that: `srv.rs`, endpoints that DNS knows.

// The client waits for sockets and deadlines: it has a clock.
#![allow(clippy::disallowed_methods, reason = "deadlines and backoff need a clock")]

mod call;
mod client;
mod concurrency;
mod connection;
mod endpoint;
mod error;
mod lease;
mod pool;
pub mod srv;
mod tls;
mod watch;

pub use call::{Context, Rpc, StreamRpc};
pub use client::{Client, Config, Credentials, Field, Log, LogLine};
pub use concurrency::{Election, Mutex, Session, observe};
pub use endpoint::{Endpoint, Scheme};
pub use error::Error;
pub use lease::KeepAlive;
pub use tls::Settings as TlsSettings;
pub use tonic::Streaming;
pub use watch::{Watch, WatchOptions};

/// The end of the range of all keys that start with `prefix`; `"\0"`, every key from there on, when there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![0]
}

/// Key and range end that stand for a prefix; the empty prefix is every key.
#[must_use]
pub fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() { (vec![0], vec![0]) } else { (prefix.to_vec(), prefix_end(prefix)) }
}

/// Key and range end of what a command names: a prefix, everything from a key on, a range, or one key.
#[must_use]
pub fn key_range(key: &[u8], end: Option<&Vec<u8>>, prefix: bool, from_key: bool) -> (Vec<u8>, Vec<u8>) {
    match end {
        _ if prefix => prefix_range(key),
        _ if from_key && key.is_empty() => (vec![0], vec![0]),
        _ if from_key => (key.to_vec(), vec![0]),
        Some(end) => (key.to_vec(), end.clone()),
        None => (key.to_vec(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_prefixes() {
        assert_eq!(prefix_end(b"a"), b"b");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"\0");
        assert_eq!(prefix_range(b""), (vec![0], vec![0]));
    }

    #[test]
    fn ranges_that_commands_name() {
        let range = |key: &str, end: Option<&Vec<u8>>, prefix, from_key| key_range(key.as_bytes(), end, prefix, from_key);
        let end = b"z".to_vec();
        assert_eq!(range("a", None, false, false), (b"a".to_vec(), Vec::new()));
        assert_eq!(range("a", Some(&end), false, false), (b"a".to_vec(), end));
        assert_eq!(range("a", None, true, false), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(range("a", None, false, true), (b"a".to_vec(), vec![0]));
        assert_eq!(range("", None, false, true), (vec![0], vec![0]));
        assert_eq!(range("", None, false, false), (Vec::new(), Vec::new()));
    }
}
