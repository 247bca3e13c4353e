//! What a certificate says of its owner, and whether a host is one of its names.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Names and number of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The common name; empty when there is none.
    pub common_name: String,
    /// Host names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The serial number, without leading zeros.
    pub serial: Vec<u8>,
}

impl Leaf {
    /// Reads a certificate; `None` when it is none.
    pub fn parse(der: &[u8]) -> Option<Leaf> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let (dns_names, addresses) = names(&certificate);
        let common_name = certificate.subject().iter_common_name().last();
        Some(Leaf {
            common_name: common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_string(),
            dns_names,
            addresses,
            serial: trimmed(certificate.raw_serial()).to_vec(),
        })
    }

    /// Go's `VerifyHostname`: the error is its text.
    pub fn check_host(&self, host: &str) -> Result<(), String> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            if self.addresses.contains(&address) {
                return Ok(());
            }
            if self.addresses.is_empty() {
                return Err(format!(
                    "x509: cannot validate certificate for {host} because it doesn't contain any IP SANs"
                ));
            }
            let valid: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            return Err(format!("x509: certificate is valid for {}, not {host}", valid.join(", ")));
        }
        if self.dns_names.iter().any(|pattern| matches(pattern, host)) {
            return Ok(());
        }
        Err(match self.dns_names.is_empty() {
            true => format!("x509: certificate is not valid for any names, but wanted to match {host}"),
            false => format!("x509: certificate is valid for {}, not {host}", self.dns_names.join(", ")),
        })
    }
}

/// Whether a certificate is within its time.
pub fn is_in_time(der: &[u8], unix_seconds: u64) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return false };
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    i64::try_from(unix_seconds).is_ok_and(|now| (from..=to).contains(&now))
}

/// A number without leading zeros.
pub(crate) fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return (dns_names, addresses) };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_string()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    (dns_names, addresses)
}

/// Whether a host is meant by a name, the first label of which may be `*`.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || pattern.is_empty() {
        return false;
    }
    match pattern.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_as_in_go() {
        let leaf = Leaf {
            dns_names: vec!["a.example".into(), "*.b.example".into()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..Leaf::default()
        };
        for host in ["a.example", "A.Example.", "x.b.example", "10.0.0.1"] {
            assert_eq!(leaf.check_host(host), Ok(()), "{host}");
        }
        for host in ["b.example", "x.y.b.example", ".b.example", ""] {
            assert!(leaf.check_host(host).is_err(), "{host}");
        }
        assert_eq!(leaf.check_host("10.0.0.2").unwrap_err(), "x509: certificate is valid for 10.0.0.1, not 10.0.0.2");
        assert_eq!(
            leaf.check_host("c").unwrap_err(),
            "x509: certificate is valid for a.example, *.b.example, not c"
        );
        assert_eq!(
            Leaf::default().check_host("10.0.0.2").unwrap_err(),
            "x509: cannot validate certificate for 10.0.0.2 because it doesn't contain any IP SANs"
        );
        assert_eq!(Leaf::parse(b"x"), None);
    }
}
