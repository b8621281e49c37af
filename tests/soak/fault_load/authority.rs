//! A certificate authority of our own: for upstream, for the proxy's listener, and for whoever connects to them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in every certificate, besides loopback's address.
pub(crate) const NAME: &str = "box.soak.example";

/// An authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    text: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let (text, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(parameters, key), certificate: der, text }
    }

    /// Returns the authority's own certificate in PEM.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Issues a certificate, and returns it and its key in PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns what upstream needs to be believed: HTTP/1.1 alone.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters().signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth();
        Arc::new(server.with_single_cert(vec![certificate], key).unwrap())
    }

    /// Returns what a client needs that believes this authority, and speaks one protocol.
    pub(crate) fn client(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(client)
    }
}

fn parameters() -> CertificateParams {
    CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap()
}
