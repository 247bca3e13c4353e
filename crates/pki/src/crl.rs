//! Lists of revoked certificates. As in Go, only serial numbers are compared: whoever sets the file vouches for it.

use std::collections::BTreeSet;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_crl;

use crate::leaf::{Leaf, trimmed};

/// Serial numbers of revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Reads a list in DER form, or in PEM form, which Go does not take; the error is Go's text.
    pub fn parse(bytes: &[u8]) -> Result<Revoked, String> {
        let der = match CertificateRevocationListDer::from_pem_slice(bytes) {
            Ok(der) => der.to_vec(),
            Err(_) => bytes.to_vec(),
        };
        let (_, list) = parse_x509_crl(&der).map_err(|_| "x509: malformed crl")?;
        Ok(Revoked(list.iter_revoked_certificates().map(|entry| trimmed(entry.raw_serial()).to_vec()).collect()))
    }

    /// Whether none of these certificates is revoked; the error is Go's text.
    pub fn check<'a>(&self, chain: impl IntoIterator<Item = &'a [u8]>) -> Result<(), String> {
        for leaf in chain.into_iter().filter_map(Leaf::parse) {
            if self.0.contains(&leaf.serial) {
                let serial: String = leaf.serial.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(format!("transport: certificate serial {serial} revoked"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    };

    use super::*;

    #[test]
    fn serial_numbers_are_found_in_either_form() {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = Issuer::new(authority, &key);
        let leaf = |serial: u64| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.serial_number = Some(SerialNumber::from(serial));
            params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
        };
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: year(2020),
            next_update: year(2030),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(0xabcdu64),
                revocation_time: year(2020),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&issuer)
        .unwrap();
        let (good, bad) = (leaf(7), leaf(0xabcd));
        for bytes in [list.der().to_vec(), list.pem().unwrap().into_bytes()] {
            let revoked = Revoked::parse(&bytes).unwrap();
            assert_eq!(revoked.check([&good[..]]), Ok(()));
            assert_eq!(
                revoked.check([&good[..], &bad[..]]).unwrap_err(),
                "transport: certificate serial abcd revoked"
            );
        }
        assert_eq!(Revoked::parse(b"garbage").unwrap_err(), "x509: malformed crl");
    }
}
