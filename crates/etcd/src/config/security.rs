//! The settings of TLS, for clients and for peers: the same ones under two sets of names.

use std::fmt;

use super::raw::RawConfig;
use super::value;

/// Files and switches of one side, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) client_cert: String,
    pub(crate) client_key: String,
    pub(crate) trusted_ca: String,
    pub(crate) client_cert_auth: bool,
    pub(crate) crl: String,
    pub(crate) allowed_common_names: Vec<String>,
    pub(crate) allowed_hostnames: Vec<String>,
    pub(crate) skips_address_check: bool,
    /// Make a certificate if none is given.
    pub(crate) is_automatic: bool,
    /// One was made: whom it names does not matter to whoever dials.
    pub(crate) is_self_signed: bool,
}

impl Security {
    /// What was said about clients.
    pub(crate) fn of_clients(raw: &RawConfig) -> Security {
        let text = |name: &str| raw.text(name).to_string();
        Security {
            cert: text("cert-file"),
            key: text("key-file"),
            client_cert: text("client-cert-file"),
            client_key: text("client-key-file"),
            trusted_ca: text("trusted-ca-file"),
            client_cert_auth: value::parse_bool(raw.text("client-cert-auth")) == Some(true),
            crl: text("client-crl-file"),
            allowed_common_names: Vec::new(),
            allowed_hostnames: names(raw.text("client-cert-allowed-hostname")),
            skips_address_check: false,
            is_automatic: value::parse_bool(raw.text("auto-tls")) == Some(true),
            is_self_signed: false,
        }
    }

    /// What was said about peers.
    pub(crate) fn of_peers(raw: &RawConfig) -> Security {
        let text = |name: &str| raw.text(name).to_string();
        Security {
            cert: text("peer-cert-file"),
            key: text("peer-key-file"),
            client_cert: text("peer-client-cert-file"),
            client_key: text("peer-client-key-file"),
            trusted_ca: text("peer-trusted-ca-file"),
            client_cert_auth: value::parse_bool(raw.text("peer-client-cert-auth")) == Some(true),
            crl: text("peer-crl-file"),
            allowed_common_names: names(raw.text("peer-cert-allowed-cn")),
            allowed_hostnames: names(raw.text("peer-cert-allowed-hostname")),
            skips_address_check: value::parse_bool(raw.text("peer-skip-client-san-verification")) == Some(true),
            is_automatic: value::parse_bool(raw.text("peer-auto-tls")) == Some(true),
            is_self_signed: false,
        }
    }

    /// Whether there is no certificate at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.cert.is_empty() && self.key.is_empty()
    }

    /// Whether whoever connects must show a certificate: a trusted CA is enough to say so.
    pub(crate) fn demands_certificate(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca.is_empty()
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
            self.cert, self.key, self.client_cert, self.client_key, self.trusted_ca, self.client_cert_auth, self.crl
        )
    }
}

fn names(text: &str) -> Vec<String> {
    value::parse_list(text).into_iter().filter(|name| !name.is_empty()).collect()
}

/// Which versions and cipher suites may be used, on both sides.
pub(crate) fn policy(raw: &RawConfig) -> pki::suites::Policy {
    pki::suites::Policy {
        suites: names(raw.text("cipher-suites")),
        no_tls12: raw.text("tls-min-version") == "TLS1.3",
        no_tls13: raw.text("tls-max-version") == "TLS1.2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(arguments: &[&str]) -> RawConfig {
        let mut raw = RawConfig::default();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        raw.read_arguments(&arguments).unwrap();
        raw
    }

    #[test]
    fn each_side_has_its_own_flags() {
        let raw = raw(&[
            "--cert-file=a", "--key-file=b", "--client-cert-allowed-hostname=x,y", "--peer-trusted-ca-file=c",
            "--peer-cert-allowed-cn=z", "--cipher-suites=A,B", "--tls-min-version=TLS1.3",
        ]);
        let (clients, peers) = (Security::of_clients(&raw), Security::of_peers(&raw));
        assert_eq!(
            clients.to_string(),
            "cert = a, key = b, client-cert=, client-key=, trusted-ca = , client-cert-auth = false, crl-file = "
        );
        assert_eq!(clients.allowed_hostnames, ["x", "y"]);
        assert!(!clients.is_empty() && !clients.demands_certificate());
        assert!(peers.is_empty() && peers.demands_certificate());
        assert_eq!(peers.allowed_common_names, ["z"]);
        let policy = policy(&raw);
        assert_eq!((policy.suites.len(), policy.no_tls12, policy.no_tls13), (2, true, false));
    }
}
