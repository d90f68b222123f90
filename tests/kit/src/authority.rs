//! A certificate authority of a test.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// An authority that nothing trusts unless it is told to. Clones are the same authority.
#[derive(Clone)]
pub struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

/// A certificate that an authority signed, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let mut params = named("layerstore test authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()))
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server on this machine: `127.0.0.1` and `localhost`.
    pub(crate) fn server(&self) -> Identity {
        let hosts = vec!["localhost".to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST).to_string()];
        self.sign(named("server", hosts), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client.
    pub(crate) fn client(&self) -> Identity {
        self.sign(named("client", Vec::new()), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }
}

fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
