//! ECDSA on P-521 with SHA-512, as rustls takes signature algorithms.

use p521::SecretKey;
use p521::ecdsa::signature::{Signer as _, Verifier as _};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::pkcs8::DecodePrivateKey;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use rustls::sign::{Signer, public_key_to_spki};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Checks signatures.
#[derive(Debug)]
pub(crate) struct P521Sha512;

/// The one value of it.
pub(crate) static P521_SHA512: P521Sha512 = P521Sha512;

impl SignatureVerificationAlgorithm for P521Sha512 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA512
    }
}

/// A private key on the curve.
#[derive(Clone)]
pub(crate) struct Key(SigningKey);

impl Key {
    /// The key in either form of files; `None` when it is another kind of key, or none.
    pub(crate) fn parse(key: &PrivateKeyDer<'_>) -> Option<Key> {
        let secret = match key {
            PrivateKeyDer::Pkcs8(der) => SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok()?,
            PrivateKeyDer::Sec1(der) => SecretKey::from_sec1_der(der.secret_sec1_der()).ok()?,
            _ => return None,
        };
        Some(Key(SigningKey::from(secret)))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(P-521)")
    }
}

impl rustls::sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = self.0.verifying_key().to_sec1_point(false);
        Some(public_key_to_spki(&alg_id::ECDSA_P521, point.as_bytes()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: Signature = self.0.try_sign(message).map_err(|error| Error::General(error.to_string()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

/// A key in the form that Go writes, the same each time.
#[cfg(test)]
pub(crate) fn pem() -> String {
    let mut number = [7; 66];
    number[0] = 0;
    let key = SecretKey::from_slice(&number).unwrap();
    key.to_sec1_pem(p521::pkcs8::LineEnding::LF).unwrap().to_string()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::sign::SigningKey as _;

    use super::*;

    #[test]
    fn what_is_signed_is_verified_and_nothing_else() {
        let key = Key::parse(&PrivateKeyDer::from_pem_slice(pem().as_bytes()).unwrap()).unwrap();
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP521_SHA512]).unwrap();
        assert!(key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_none());
        let signature = signer.sign(b"message").unwrap();
        let point = key.0.verifying_key().to_sec1_point(false);
        assert!(P521_SHA512.verify_signature(point.as_bytes(), b"message", &signature).is_ok());
        assert!(P521_SHA512.verify_signature(point.as_bytes(), b"massage", &signature).is_err());
        assert!(P521_SHA512.verify_signature(point.as_bytes(), b"message", b"x").is_err());
        assert!(P521_SHA512.verify_signature(b"x", b"message", &signature).is_err());
    }
}
