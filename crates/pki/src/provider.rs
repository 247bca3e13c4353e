//! Cryptography: ring's, and the curve P-521, which ring does not have.
//!
//! Go's `--auto-tls` and `--peer-auto-tls` make P-521 keys. Without the curve, neither a directory with such keys
//! could be taken over nor a peer with one be spoken to.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme};

use crate::p521::{P521_SHA512, Key};

static P521: &[&dyn SignatureVerificationAlgorithm] = &[&P521_SHA512];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let ring = ring::default_provider();
    let known = ring.signature_verification_algorithms;
    let all: Vec<_> = known.all.iter().chain(P521).copied().collect();
    let mut mapping = known.mapping.to_vec();
    mapping.push((SignatureScheme::ECDSA_NISTP521_SHA512, P521));
    Arc::new(CryptoProvider {
        // Once in the life of a process: rustls wants these for ever.
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() },
        key_provider: &Keys,
        ..ring
    })
});

/// The cryptography that every TLS connection of this workspace uses.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Reads private keys.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match ring::sign::any_supported_type(&key) {
            Ok(key) => Ok(key),
            Err(error) => Key::parse(&key).map(|key| Arc::new(key) as Arc<dyn SigningKey>).ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p521_is_offered_beside_what_ring_has() {
        let schemes = provider().signature_verification_algorithms.supported_schemes();
        assert!(schemes.contains(&SignatureScheme::ECDSA_NISTP521_SHA512));
        assert!(schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256));
    }
}
