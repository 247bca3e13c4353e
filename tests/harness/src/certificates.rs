//! Certificates for tests: authorities, those they sign, and their lists of revoked ones.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

const YEAR: time::Duration = time::Duration::days(365);

/// A certificate authority whose certificates lie in a folder.
pub struct Authority {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// What a certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The common name.
    pub name: &'a str,
    /// Hosts and addresses.
    pub hosts: &'a [&'a str],
    /// For use by servers.
    pub server: bool,
    /// For use by clients.
    pub client: bool,
    /// Whether its time is over.
    pub expired: bool,
    /// The serial number.
    pub serial: u64,
}

/// A certificate that is good for everything on loopback.
pub const LOOPBACK: Owner<'static> =
    Owner { name: "node", hosts: &["127.0.0.1", "localhost"], server: true, client: true, expired: false, serial: 0x1001 };

/// A certificate for a client only, without hosts.
pub const CLIENT: Owner<'static> =
    Owner { name: "root", hosts: &[], server: false, client: true, expired: false, serial: 0x1002 };

impl Authority {
    /// A new authority; its certificate is `NAME.pem` in `dir`, its key `NAME.key`.
    pub fn new(dir: &Path, name: &str) -> Authority {
        Authority::until(dir, name, YEAR)
    }

    /// One whose time is over.
    pub fn expired(dir: &Path, name: &str) -> Authority {
        Authority::until(dir, name, -YEAR)
    }

    fn until(dir: &Path, name: &str, from_now: time::Duration) -> Authority {
        let mut params = CertificateParams::default();
        let now = time::OffsetDateTime::from(SystemTime::now());
        (params.not_before, params.not_after) = (now - YEAR * 2, now + from_now);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("it can be signed");
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("scratch is writable");
        let authority = Authority { dir: dir.to_path_buf(), name: name.into(), issuer: Issuer::new(params, key) };
        std::fs::write(authority.cert(), certificate.pem()).expect("scratch is writable");
        authority
    }

    /// The file of its own certificate.
    pub fn cert(&self) -> String {
        self.path(&format!("{}.pem", self.name))
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Signs a certificate; its files are `FILE.pem` and `FILE.key`, and are replaced at once if there are any.
    pub fn sign(&self, file: &str, owner: Owner<'_>) -> Files {
        let hosts: Vec<String> = owner.hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts have names");
        params.distinguished_name.push(DnType::CommonName, owner.name);
        params.serial_number = Some(SerialNumber::from(owner.serial));
        let now = time::OffsetDateTime::from(SystemTime::now());
        (params.not_before, params.not_after) =
            if owner.expired { (now - YEAR * 2, now - YEAR) } else { (now - YEAR, now + YEAR) };
        let uses = [(owner.server, ExtendedKeyUsagePurpose::ServerAuth), (owner.client, ExtendedKeyUsagePurpose::ClientAuth)];
        params.extended_key_usages = uses.into_iter().filter(|(wanted, _)| *wanted).map(|(_, usage)| usage).collect();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let files = Files { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        replace(&files.cert, certificate.pem().as_bytes());
        replace(&files.key, key.serialize_pem().as_bytes());
        files
    }

    /// Writes the list of revoked serial numbers in DER form, the only one that Go takes.
    pub fn revoke(&self, file: &str, serials: &[u64]) -> String {
        let now = time::OffsetDateTime::from(SystemTime::now());
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - YEAR,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - YEAR,
            next_update: now + YEAR,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path(file);
        replace(&path, list.signed_by(&self.issuer).expect("it can be signed").der());
        path
    }
}

/// Puts a file in place, as tools that rotate certificates do: nobody sees half of it.
fn replace(path: &str, contents: &[u8]) {
    let fresh = format!("{path}.new");
    std::fs::write(&fresh, contents).expect("scratch is writable");
    std::fs::rename(fresh, path).expect("scratch is writable");
}
