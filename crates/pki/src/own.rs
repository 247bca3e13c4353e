//! Self-signed certificates, for `--auto-tls` and `--peer-auto-tls`.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};

/// A certificate and its key, both in PEM form.
pub struct Made {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Makes a certificate for these hosts (`host:port`), valid from `now` on; for clients' use too if asked for.
pub fn make(hosts: &[&str], now: SystemTime, validity: Duration, also_client: bool) -> Result<Made, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.not_before = now.into();
    params.not_after = (now + validity).into();
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if also_client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    for host in hosts {
        let name = host.rsplit_once(':').map_or(*host, |(name, _)| name).trim_matches(['[', ']']);
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().map_err(|_| format!("x509: invalid host name {name:?}"))?),
        });
    }
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    // The key is fresh, so that a number made from it is as good as a random one.
    params.serial_number = Some(serial(&key));
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn serial(key: &KeyPair) -> SerialNumber {
    let public = key.public_key_raw();
    let mut number = public[public.len() - 16..].to_vec();
    // Positive, and not zero.
    number[0] = number[0] & 0x7f | 0x40;
    SerialNumber::from(number)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::leaf::{self, Leaf};

    #[test]
    fn it_names_the_hosts_and_ends_when_it_should() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let made = make(&["127.0.0.1:2379", "localhost:1", "[::1]:1"], now, Duration::from_secs(100), true).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        let leaf = Leaf::parse(&der).unwrap();
        assert_eq!(leaf.dns_names, ["localhost"]);
        assert_eq!(leaf.addresses.len(), 2);
        assert_eq!(leaf.serial.len(), 16);
        assert!(leaf::is_in_time(&der, 1_800_000_050) && !leaf::is_in_time(&der, 1_800_000_200));
        assert!(make(&["a\u{e4}:1"], now, Duration::from_secs(1), false).is_err());
    }
}
