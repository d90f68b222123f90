//! From [`Tls`] to a configuration of `rustls`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::TransportError;
use super::verify::{SystemRoots, TrustAll, Verifier};
use crate::{Tls, limited};

/// Above the bundles of all authorities that systems have.
const LARGEST: u64 = 4 << 20;

/// Loads the files of `tls`. The provider is given here, so that no other one that the process may have set counts.
pub(super) fn config(tls: &Tls, system: &Arc<SystemRoots>) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Client { reason: error.to_string() })?
        .dangerous();
    let builder = if tls.skip_verify {
        builder
            .with_custom_certificate_verifier(Arc::new(TrustAll { schemes: algorithms.supported_schemes() }))
    } else {
        let (given, roots) = authorities(tls)?;
        let verifier = Verifier::new(given, roots, Arc::clone(system), algorithms);
        builder.with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = if tls.identities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let keys =
            tls.identities.iter().map(|(certificate, key)| identity(certificate, key.as_deref(), &provider));
        builder.with_client_cert_resolver(Arc::new(Identities(keys.collect::<Result<_, _>>()?)))
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// All certificates of the files, and those of them that can vouch for others.
fn authorities(tls: &Tls) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), TransportError> {
    let mut given = Vec::new();
    let mut roots = RootCertStore::empty();
    for path in &tls.authorities {
        let certificates = certificates(path, &read(path)?)?;
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(content(path, "no certificate in it can be used as that of an authority"));
        }
        given.extend(certificates);
    }
    Ok((given, roots))
}

fn identity(
    certificate: &Path,
    key: Option<&Path>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TransportError> {
    let pem = read(certificate)?;
    let chain = certificates(certificate, &pem)?;
    let (path, pem) = match key {
        Some(key) => (key, read(key)?),
        None => (certificate, pem),
    };
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let encrypted = pem.windows(9).any(|bytes| bytes == b"ENCRYPTED");
        content(
            path,
            if encrypted { "the private key is encrypted: store it without a passphrase" } else { NO_KEY },
        )
    })?;
    let pair = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        content(path, &format!("the private key cannot be used for {}: {error}", certificate.display()))
    })?;
    Ok(Arc::new(pair))
}

const NO_KEY: &str = "no private key in PEM form (\"BEGIN PRIVATE KEY\", \"BEGIN RSA PRIVATE KEY\", \
     \"BEGIN EC PRIVATE KEY\")";

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| content(path, &format!("not in PEM form: {error}")))?;
    if certificates.is_empty() {
        return Err(content(path, "no certificate in PEM form (\"BEGIN CERTIFICATE\")"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TransportError> {
    limited::read(path, LARGEST).map_err(|source| TransportError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, reason: &str) -> TransportError {
    TransportError::Content { path: path.to_owned(), reason: reason.to_owned() }
}

/// Shows the first certificate whose key can sign as the server asks. Which authorities the server names does not
/// count: few do, and whoever configured a certificate for a host means it.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|pair| pair.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
