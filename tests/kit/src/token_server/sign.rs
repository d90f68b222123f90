//! Signs tokens: JSON Web Tokens with ES256 and the certificate of the key in their head.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

/// `distribution` takes a token for so long after its end, in case clocks differ.
const LEEWAY: Duration = Duration::from_mins(1);

/// A key, and whose it is.
pub(super) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    head: String,
    service: &'static str,
    issuer: &'static str,
    count: AtomicU64,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key, and its certificate in PEM.
    pub(super) fn new(service: &'static str, issuer: &'static str) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, issuer);
        let certificate = params.self_signed(&key).unwrap();
        let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(certificate.der())]});
        let random = SystemRandom::new();
        let pkcs8 = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap();
        let head = BASE64_URL_SAFE_NO_PAD.encode(head.to_string());
        (Self { key, random, head, service, issuer, count: AtomicU64::new(0) }, certificate.pem())
    }

    /// A token that a registry accepts for `lifetime` from now on, to the second.
    pub(super) fn token(&self, user: &str, access: &[Value], lifetime: Duration) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let claims = json!({
            "iss": self.issuer,
            "sub": user,
            "aud": self.service,
            "iat": now.as_secs(),
            "nbf": (now.saturating_sub(LEEWAY)).as_secs(),
            "exp": (now + lifetime).saturating_sub(LEEWAY).as_secs(),
            "jti": self.count.fetch_add(1, Ordering::Relaxed).to_string(),
            "access": access,
        });
        let signed = format!("{}.{}", self.head, BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}
