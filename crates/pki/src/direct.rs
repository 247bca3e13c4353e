//! Certificates that Go takes and webpki does not: those of version 1, which `openssl x509 -req` made for decades, and
//! those of authorities that are used as anybody's. They are taken if a trusted authority has signed them itself.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::Oid;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::leaf;

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Client,
    Server,
}

/// Extensions that are understood here; any other that is critical is a reason to refuse.
const UNDERSTOOD: [&str; 4] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"];

/// Checks a certificate against those who may have signed it.
pub(crate) fn check(
    der: &[u8],
    bundle: &[CertificateDer<'_>],
    shown_for: Use,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), CertificateError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|_| CertificateError::BadEncoding)?;
    let issuer = certificate.issuer().as_raw();
    let is_signed = bundle.iter().filter_map(|trusted| parse_x509_certificate(trusted).ok()).any(|(_, trusted)| {
        trusted.subject().as_raw() == issuer && is_signed_by(&certificate, trusted.public_key(), algorithms)
    });
    if !is_signed {
        return Err(CertificateError::UnknownIssuer);
    }
    if !leaf::is_in_time(der, now.as_secs()) {
        return Err(CertificateError::Expired);
    }
    let is_strange = |oid: &Oid<'_>| !UNDERSTOOD.contains(&oid.to_id_string().as_str());
    if certificate.extensions().iter().any(|extension| extension.critical && is_strange(&extension.oid)) {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) => {
            let named = match shown_for {
                Use::Client => usage.value.client_auth,
                Use::Server => usage.value.server_auth,
            };
            if named || usage.value.any { Ok(()) } else { Err(CertificateError::InvalidPurpose) }
        }
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

/// The object identifier as it begins the description of an algorithm.
fn begins(oid: &Oid<'_>) -> Vec<u8> {
    let bytes = oid.as_bytes();
    let mut whole = vec![6, bytes.len() as u8];
    whole.extend_from_slice(bytes);
    whole
}

fn is_signed_by(
    certificate: &X509Certificate<'_>,
    key: &SubjectPublicKeyInfo<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    let (of_signature, of_key) = (begins(&certificate.signature_algorithm.algorithm), begins(&key.algorithm.algorithm));
    let fitting = algorithms.all.iter().filter(|algorithm| {
        algorithm.signature_alg_id().as_ref().starts_with(&of_signature)
            && algorithm.public_key_alg_id().as_ref().starts_with(&of_key)
    });
    // A key of another curve is no key to an algorithm.
    fitting.into_iter().any(|algorithm| algorithm.verify_signature(&key.subject_public_key.data, signed, signature).is_ok())
}

/// Whether the owner of a certificate has signed a message of the handshake.
pub(crate) fn has_signed(
    der: &[u8],
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return false };
    let key = certificate.public_key();
    let of_key = begins(&key.algorithm.algorithm);
    let mapped = algorithms.mapping.iter().filter(|(known, _)| *known == scheme).flat_map(|(_, mapped)| *mapped);
    let mut fitting = mapped.filter(|algorithm| algorithm.public_key_alg_id().as_ref().starts_with(&of_key));
    fitting.any(|algorithm| algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::provider;

    #[test]
    fn a_certificate_of_an_authority_is_taken_from_one_that_is_trusted() {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().der().clone();
            (certificate, Issuer::new(params, key))
        };
        let (trusted, issuer) = authority("a");
        let (of_the_same_name, _) = authority("a");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let algorithms = provider().signature_verification_algorithms;
        let check = |bundle: &[CertificateDer<'_>], shown_for, now| check(&signed, bundle, shown_for, now, &algorithms);
        assert_eq!(check(&[of_the_same_name.clone(), trusted.clone()], Use::Client, now), Ok(()));
        assert_eq!(check(&[of_the_same_name], Use::Client, now), Err(CertificateError::UnknownIssuer));
        assert_eq!(check(std::slice::from_ref(&trusted), Use::Server, now), Err(CertificateError::InvalidPurpose));
        let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(1));
        assert_eq!(check(&[trusted], Use::Client, long_ago), Err(CertificateError::Expired));
    }
}
