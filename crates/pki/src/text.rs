//! What went wrong with TLS, in Go's words: people search for them, and tools wait for them.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, InvalidMessage, PeerIncompatible};

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

/// A time as `2006-01-02T15:04:05Z`.
fn date(time: UnixTime) -> String {
    let (days, seconds) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Eras of 400 years that begin in March, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"), (951_827_696, "2000-02-29T12:34:56Z"), (1_609_459_199, "2020-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), text);
        }
    }

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
