//! How the certificate of a server is checked.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The authorities that the system trusts, read when a certificate first needs them: it takes milliseconds, which
/// whoever speaks plain HTTP, or has the authority of a registry in a file, need not spend.
#[derive(Debug, Default)]
pub(super) struct SystemRoots(OnceLock<RootCertStore>);

impl SystemRoots {
    pub(super) fn get(&self) -> &RootCertStore {
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("while loading the system's certificate authorities: {error}");
            }
            let mut roots = RootCertStore::empty();
            let (_, unusable) = roots.add_parsable_certificates(found.certs);
            if unusable > 0 {
                tracing::debug!("{unusable} of the system's certificate authorities cannot be used");
            }
            roots
        })
    }

    /// Has `roots` stand for the system's.
    #[cfg(test)]
    pub(super) fn of(roots: RootCertStore) -> Arc<Self> {
        Arc::new(Self(OnceLock::from(roots)))
    }

    /// Whether they have been needed so far.
    #[cfg(test)]
    pub(super) fn are_loaded(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Trusts what some given certificates or the system's authorities vouch for.
#[derive(Debug)]
pub(super) struct Verifier {
    given: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    system: Arc<SystemRoots>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `roots` holds the certificates of `given` that can vouch for others.
    pub(super) fn new(
        given: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        system: Arc<SystemRoots>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { given, roots, system, algorithms }
    }

    fn check_issuer(
        &self,
        certificate: &ParsedCertificate<'_>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let check = |roots| {
            verify_server_cert_signed_by_trust_anchor(
                certificate,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        };
        let by_given = if self.roots.is_empty() {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        } else {
            check(&self.roots)
        };
        let Err(refused) = by_given else { return Ok(()) };
        // `openssl req -x509`, which the documentation of registries recommends, makes a certificate that is its own
        // authority. What was given as trusted is trusted as it is. Its dates have been checked before.
        let only_issuer = matches!(
            refused,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))
        );
        if only_issuer && self.given.contains(end_entity) {
            return Ok(());
        }
        let system = self.system.get();
        if system.is_empty() && self.given.is_empty() {
            let reason =
                "this system has no certificate authorities: install ca-certificates or give a CA file";
            return Err(Error::General(reason.to_owned()));
        }
        match check(system) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Err(refused),
            result => result,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        self.check_issuer(&certificate, end_entity, intermediates, now)?;
        verify_server_name(&certificate, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Trusts everyone: `skip_verify`, insecure registries, and this machine. Whoever is on the way can be the server, read
/// everything, and answer as they like; only what is asked for by digest is still certain.
///
/// The signatures of the handshake are not checked either: made with a key that nobody vouches for, they prove
/// nothing, and old devices have certificates that they cannot be checked with.
#[derive(Debug)]
pub(super) struct TrustAll {
    pub(super) schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
