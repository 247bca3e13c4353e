//! PEM files: certificates with their keys, bundles of trusted certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::parse_x509_certificate;

use crate::provider;

/// Largest file that is read. A bundle of all authorities of the world has some 200 kB.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Bundles of trusted certificates of common systems.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The bytes of a file; the error is Go's text.
pub fn read(path: &str) -> Result<Vec<u8>, String> {
    let words = |action: &str, error: &std::io::Error| {
        let text = error.to_string();
        let text = text.find(" (os error").map_or(text.as_str(), |at| &text[..at]);
        format!("{action} {path}: {}", text.to_lowercase())
    };
    let about = std::fs::metadata(path).map_err(|error| words("open", &error))?;
    if about.is_dir() {
        return Err(format!("read {path}: is a directory"));
    }
    if about.len() > FILE_MAX_BYTES {
        return Err(format!("read {path}: file is larger than {FILE_MAX_BYTES} bytes"));
    }
    std::fs::read(path).map_err(|error| words("open", &error))
}

/// What a file looked like when it was read: a change of it shows that it must be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, std::time::SystemTime, u64)>>);

impl Stamp {
    /// Looks at files. Those that cannot be looked at count as absent.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a str>) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let look = |path: &str| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.len(), about.modified().ok()?, about.ino()))
        };
        Stamp(paths.into_iter().map(look).collect())
    }
}

/// A certificate chain and its key, which must belong together; the error is Go's text.
pub fn pair(cert: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
    let (cert, key) = (read(cert)?, read(key)?);
    let chain = chain(&cert)?;
    let key = private_key(&key)?;
    let key = provider().key_provider.load_private_key(key).map_err(|_| "tls: failed to parse private key")?;
    if parse_x509_certificate(&chain[0]).is_err() {
        return Err("x509: malformed certificate".into());
    }
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Nothing can be said of a key whose public half is unknown: the handshake will tell.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err("tls: private key does not match public key".into()),
    }
}

/// Everything in PEM form in `bytes` that anybody knows.
fn sections(bytes: &[u8]) -> Vec<(SectionKind, Vec<u8>)> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).map_while(Result::ok).collect()
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

fn chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let sections = sections(bytes);
    let (certificates, others): (Vec<_>, Vec<_>) =
        sections.into_iter().partition(|(kind, _)| *kind == SectionKind::Certificate);
    if !certificates.is_empty() {
        return Ok(certificates.into_iter().map(|(_, der)| CertificateDer::from(der)).collect());
    }
    Err(match &others[..] {
        [] => "tls: failed to find any PEM data in certificate input",
        [(kind, _)] if is_key(*kind) => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
             have been switched"
        }
        _ => "tls: failed to find \"CERTIFICATE\" PEM block in certificate input",
    }
    .into())
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let mut sections = sections(bytes);
    if let Some(at) = sections.iter().position(|(kind, _)| is_key(*kind)) {
        let (kind, der) = sections.swap_remove(at);
        return Ok(match kind {
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
            _ => PrivateKeyDer::Pkcs8(der.into()),
        });
    }
    Err(match &sections[..] {
        [] => "tls: failed to find any PEM data in key input",
        [(SectionKind::Certificate, _)] => "tls: found a certificate rather than a key in the PEM for the private key",
        _ => "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input",
    }
    .into())
}

/// The certificates of a bundle; the error is Go's text. A file without any is an empty bundle, as in Go.
pub fn bundle(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut bundle = Vec::new();
    for (kind, der) in sections(&read(path)?) {
        if kind != SectionKind::Certificate {
            return Err("x509: malformed tbs certificate".into());
        }
        if parse_x509_certificate(&der).is_err() {
            return Err("x509: malformed certificate".into());
        }
        bundle.push(CertificateDer::from(der));
    }
    Ok(bundle)
}

/// The certificates that the system trusts.
pub fn system_bundle() -> Vec<CertificateDer<'static>> {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let bundles = named.as_deref().into_iter().chain(SYSTEM_BUNDLES.iter().copied());
    let read = |path: &str| -> Option<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(Path::new(path)).ok()?.collect::<Result<_, _>>().ok()
    };
    bundles.into_iter().find_map(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own;

    #[test]
    fn a_pair_is_read_and_a_wrong_one_is_refused_in_gos_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let years = std::time::Duration::from_secs(365 * 86400);
        for name in ["a", "b"] {
            let made = own::make(&["127.0.0.1:1"], std::time::SystemTime::UNIX_EPOCH, years, false).unwrap();
            std::fs::write(path(&format!("{name}.pem")), made.certificate).unwrap();
            std::fs::write(path(&format!("{name}.key")), made.key).unwrap();
        }
        std::fs::write(path("garbage"), "garbage\n").unwrap();
        std::fs::write(path("p521.key"), crate::p521::pem()).unwrap();
        let refused = |cert: &str, key: &str| pair(&path(cert), &path(key)).unwrap_err();
        assert!(pair(&path("a.pem"), &path("a.key")).is_ok());
        assert_eq!(refused("a.pem", "b.key"), "tls: private key does not match public key");
        assert_eq!(refused("a.pem", "p521.key"), "tls: private key does not match public key");
        assert_eq!(refused("no", "a.key"), format!("open {}: no such file or directory", path("no")));
        assert_eq!(refused("", "a.key"), format!("read {}: is a directory", path("")));
        assert_eq!(refused("garbage", "a.key"), "tls: failed to find any PEM data in certificate input");
        assert_eq!(refused("a.pem", "garbage"), "tls: failed to find any PEM data in key input");
        assert_eq!(
            refused("a.pem", "a.pem"),
            "tls: found a certificate rather than a key in the PEM for the private key"
        );
        assert!(refused("a.key", "a.pem").ends_with("PEM inputs may have been switched"));
        assert_eq!(bundle(&path("a.pem")).unwrap().len(), 1);
        assert_eq!(bundle(&path("garbage")).unwrap().len(), 0);
        assert_eq!(bundle(&path("a.key")).unwrap_err(), "x509: malformed tbs certificate");
    }

    #[test]
    fn a_changed_file_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f").display().to_string();
        let before = Stamp::of([path.as_str()]);
        std::fs::write(&path, "1").unwrap();
        let first = Stamp::of([path.as_str()]);
        std::fs::write(&path, "22").unwrap();
        assert!(before != first && first != Stamp::of([path.as_str()]));
        assert_eq!(Stamp::of([path.as_str()]), Stamp::of([path.as_str()]));
    }
}
