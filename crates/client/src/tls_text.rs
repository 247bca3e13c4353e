//! What went wrong with TLS, in the words of Go's client: people search for them.

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys};

/// The text of a failed handshake or connection.
pub(crate) fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("tls: failed to verify certificate: x509: {}", certificate(error)),
        Error::AlertReceived(alert) => format!("remote error: tls: {}", received(*alert)),
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".into(),
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "tls: private key does not match public key".into(),
        Error::NoCertificatesPresented => "tls: failed to find any PEM data in certificate input".into(),
        other => format!("tls: {other}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "certificate has expired or is not yet valid".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            // The names come as `DnsName("a")` and `IpAddress(1.2.3.4)`.
            let names = |kind: &str| -> Vec<String> {
                let inner = |name: &String| name.strip_prefix(kind)?.strip_suffix(')').map(str::to_owned);
                presented.iter().filter_map(inner).map(|name| name.trim_matches('"').to_owned()).collect()
            };
            let is_ip = expected.parse::<std::net::IpAddr>().is_ok();
            let found = names(if is_ip { "IpAddress(" } else { "DnsName(" });
            match (is_ip, found.is_empty()) {
                (true, true) => {
                    format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs")
                }
                (false, true) => format!("certificate is not valid for any names, but wanted to match {expected}"),
                (_, false) => format!("certificate is valid for {}, not {expected}", found.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

fn received(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::InternalError => "internal error",
        other => return format!("{other:?}"),
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn texts() {
        let name = |expected: &'static str, presented: &[&str]| {
            of(&Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from(expected).unwrap(),
                presented: presented.iter().map(ToString::to_string).collect(),
            }))
        };
        let prefix = "tls: failed to verify certificate: x509: ";
        let names = &["DnsName(\"a\")", "DnsName(\"b\")"];
        assert_eq!(name("c", names), format!("{prefix}certificate is valid for a, b, not c"));
        assert_eq!(
            name("127.0.0.1", names),
            format!("{prefix}cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs")
        );
        assert_eq!(
            of(&Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            format!("{prefix}certificate signed by unknown authority")
        );
        let alert = Error::AlertReceived(AlertDescription::UnknownCA);
        assert_eq!(of(&alert), "remote error: tls: unknown certificate authority");
    }
}
