//! The curve P-521 for rustls, whose ring has not got it. etcd's own `--auto-tls` makes keys of it.

use std::sync::Arc;

use p521::ecdsa::signature::RandomizedSigner as _;
use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::elliptic_curve::rand_core::OsRng;
use p521::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::crypto::{self, KeyProvider};
use tokio_rustls::rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use tokio_rustls::rustls::sign::{Signer, SigningKey as RustlsKey};
use tokio_rustls::rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// What webpki may check certificates with.
pub(super) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[&SHA512, &SHA384, &SHA256];

/// What a peer may sign handshakes with. In TLS 1.3 the scheme fixes the curve, and the hash with it.
pub(super) const MAPPING: &[(SignatureScheme, &[&dyn SignatureVerificationAlgorithm])] =
    &[(SignatureScheme::ECDSA_NISTP521_SHA512, &[&SHA512])];

/// Bytes of a number below the order of the curve.
const WIDTH: usize = 66;

const SHA512: Verify = Verify { hash: |message| padded(&Sha512::digest(message)), id: alg_id::ECDSA_SHA512 };
const SHA384: Verify = Verify { hash: |message| padded(&Sha384::digest(message)), id: alg_id::ECDSA_SHA384 };
// What `openssl req -x509` takes unless told otherwise.
const SHA256: Verify = Verify { hash: |message| padded(&Sha256::digest(message)), id: alg_id::ECDSA_SHA256 };

/// The hash as a number of the curve's width. The library refuses hashes of less than half of that, which ECDSA does not.
fn padded(hash: &[u8]) -> [u8; WIDTH] {
    let mut number = [0; WIDTH];
    number[WIDTH - hash.len()..].copy_from_slice(hash);
    number
}

#[derive(Debug)]
struct Verify {
    hash: fn(&[u8]) -> [u8; WIDTH],
    id: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verify {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify_prehash(&(self.hash)(message), &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.id
    }
}

/// Private keys of every kind that is accepted.
#[derive(Debug)]
pub(super) struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn RustlsKey>, Error> {
        let secret = match &key {
            PrivateKeyDer::Pkcs8(der) => p521::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Sec1(der) => p521::SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
            _ => None,
        };
        let Some(secret) = secret else { return crypto::ring::sign::any_supported_type(&key) };
        let unusable = || Error::General("a P-521 key that cannot be used".to_owned());
        let public = secret.public_key().to_public_key_der().map_err(|_| unusable())?.into_vec();
        let signing = SigningKey::from_bytes(&secret.to_bytes()).map_err(|_| unusable())?;
        Ok(Arc::new(Key { signing, public }))
    }
}

#[derive(Clone)]
struct Key {
    signing: SigningKey,
    /// As certificates have it (`SubjectPublicKeyInfo`).
    public: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(P-521)")
    }
}

impl RustlsKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512);
        ours.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public.as_slice()))
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: Result<Signature, _> = self.signing.try_sign_with_rng(&mut OsRng, message);
        let signature = signature.map_err(|_| Error::General("signing with P-521 failed".to_owned()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}
