//! Cipher suites and versions by Go's names, and the cryptography that is left when only some of them may be used.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::provider;

/// Suites that Go knows and rustls does not have: each is too weak, or lacks forward secrecy.
const ONLY_GO: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Which versions and suites may be used.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// Suites by Go's names; all when there is none.
    pub suites: Vec<String>,
    /// TLS 1.2 may not be used.
    pub no_tls12: bool,
    /// TLS 1.3 may not be used.
    pub no_tls13: bool,
}

/// rustls' suite of Go's name; `None` when rustls does not have it.
fn suite(name: &str) -> Option<SupportedCipherSuite> {
    let name = match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        name => name,
    };
    provider().cipher_suites.iter().copied().find(|suite| {
        let known = suite.suite().as_str().unwrap_or_default();
        known == name || known.strip_prefix("TLS13_").is_some_and(|rest| name.strip_prefix("TLS_") == Some(rest))
    })
}

impl Policy {
    /// Checks the names, as Go does; the error is its text.
    pub fn check(&self) -> Result<(), String> {
        let wrong = self.suites.iter().find(|name| suite(name).is_none() && !ONLY_GO.contains(&name.as_str()));
        wrong.map_or(Ok(()), |name| Err(format!("unexpected TLS cipher suite {name:?}")))
    }

    /// Whether HTTP/2 can be served, for which one of two suites is needed; the error is Go's text.
    pub fn check_http2(&self) -> Result<(), String> {
        let needed =
            ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
        if self.suites.is_empty() || self.suites.iter().any(|name| needed.contains(&name.as_str())) {
            return Ok(());
        }
        Err(format!(
            "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of \
             {} or {})",
            needed[0], needed[1]
        ))
    }

    /// Suites that were asked for and that are not to be had.
    pub fn missing(&self) -> Vec<&str> {
        self.suites.iter().map(String::as_str).filter(|name| ONLY_GO.contains(name)).collect()
    }

    /// The cryptography that may be used. Those of TLS 1.3 cannot be chosen, as in Go.
    pub fn provider(&self) -> Result<Arc<CryptoProvider>, String> {
        if self.suites.is_empty() {
            return Ok(provider());
        }
        let chosen: Vec<_> = self.suites.iter().filter_map(|name| suite(name)).collect();
        let mut limited = (*provider()).clone();
        limited.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(suite));
        if self.no_tls13 && limited.cipher_suites.iter().all(|suite| suite.tls13().is_some()) {
            return Err(format!("none of the cipher suites {} is available", self.suites.join(",")));
        }
        Ok(Arc::new(limited))
    }

    /// The versions that may be used.
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions = Vec::new();
        if !self.no_tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if !self.no_tls12 {
            versions.push(&rustls::version::TLS12);
        }
        versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(suites: &[&str]) -> Policy {
        Policy { suites: suites.iter().map(ToString::to_string).collect(), ..Policy::default() }
    }

    #[test]
    fn suites_have_gos_names() {
        for name in [
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256",
            "TLS_RSA_WITH_AES_128_GCM_SHA256",
        ] {
            assert_eq!(policy(&[name]).check(), Ok(()), "{name}");
        }
        assert_eq!(policy(&["NOPE"]).check().unwrap_err(), "unexpected TLS cipher suite \"NOPE\"");
        assert!(policy(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]).check_http2().is_err());
        assert!(policy(&[]).check_http2().is_ok());
    }

    #[test]
    fn only_what_was_chosen_is_left() {
        let chosen = policy(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let left = chosen.provider().unwrap();
        assert_eq!(left.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
        assert_eq!(chosen.missing(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let none = Policy { no_tls13: true, ..policy(&["TLS_RSA_WITH_AES_128_CBC_SHA"]) };
        assert!(none.provider().is_err());
        assert_eq!(none.versions().len(), 1);
    }
}
