//! What went wrong with TLS, in Go's words: people search for them, and tools wait for them.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, InvalidMessage, PeerIncompatible};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text of a failed handshake or connection.
pub fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForName) => "client certificate authentication failed".into(),
        Error::InvalidCertificate(error) => format!("tls: failed to verify certificate: x509: {}", certificate(error)),
        Error::AlertReceived(alert) => format!("remote error: tls: {}", received(*alert)),
        Error::InvalidMessage(message) => invalid(message).into(),
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "tls: private key does not match public key".into(),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".into(),
        Error::DecryptError => "local error: tls: bad record MAC".into(),
        Error::PeerIncompatible(why) => incompatible(why),
        other => format!("tls: {other}"),
    }
}

fn invalid(message: &InvalidMessage) -> &'static str {
    match message {
        InvalidMessage::InvalidContentType
        | InvalidMessage::UnknownProtocolVersion
        | InvalidMessage::MessageTooLarge
        | InvalidMessage::InvalidEmptyPayload => "tls: first record does not look like a TLS handshake",
        _ => "local error: tls: error decoding message",
    }
}

fn incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::NoCipherSuitesInCommon => "tls: no cipher suite supported by both client and server".into(),
        // Every client of TLS 1.2 or newer sends the extension.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "tls: client offered only unsupported versions".into()
        }
        other => format!("tls: {other:?}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    let untimely = "certificate has expired or is not yet valid";
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{untimely}: current time {} is after {}", date(*time), date(*not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("{untimely}: current time {} is before {}", date(*time), date(*not_before))
        }
        CertificateError::Expired | CertificateError::NotValidYet => untimely.into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".into()
        }
        CertificateError::BadEncoding => "malformed certificate".into(),
        CertificateError::NotValidForNameContext { expected, presented } => not_valid_for(&expected.to_str(), presented),
        other => other.to_string(),
    }
}

fn not_valid_for(expected: &str, presented: &[String]) -> String {
    // The names come as `DnsName("a")` and `IpAddress(1.2.3.4)`.
    let names = |kind: &str| -> Vec<String> {
        let inner = |name: &String| name.strip_prefix(kind)?.strip_suffix(')').map(str::to_owned);
        presented.iter().filter_map(inner).map(|name| name.trim_matches('"').to_owned()).collect()
    };
    let is_ip = expected.parse::<std::net::IpAddr>().is_ok();
    let found = names(if is_ip { "IpAddress(" } else { "DnsName(" });
    match (is_ip, found.is_empty()) {
        (true, true) => format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs"),
        (false, true) => format!("certificate is not valid for any names, but wanted to match {expected}"),
        (_, false) => format!("certificate is valid for {}, not {expected}", found.join(", ")),
    }
}

fn date(time: UnixTime) -> String {
    let time = OffsetDateTime::from(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
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
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::UserCanceled => "user canceled",
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
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(
            of(&Error::InvalidCertificate(CertificateError::ExpiredContext { time: time(86400), not_after: time(0) })),
            format!(
                "{prefix}certificate has expired or is not yet valid: current time 1970-01-02T00:00:00Z is after \
                 1970-01-01T00:00:00Z"
            )
        );
    }
}
