//! Decides what TLS is spoken with: our certificate, and whose certificates clients must show.
//!
//! The files are read again every few seconds, by content, so that a renewed certificate, a mounted secret that was swapped
//! and an edit in place are all the same. New connections get what the files hold; connections that are open keep what they
//! began with.
//!
//! Invariants: what the files held last and made sense is used until they make sense again; a key never shows in an
//! error. Not here: the handshake (`server::endpoint`), upstream's certificates (`upstream::tls`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::crypto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time;

use crate::config::listen::TlsConfig;
use crate::metrics::Metrics;
use crate::metrics::reloads::ReloadOutcome;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Why the files of `[listen.tls]` cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("could not read {key} {}", path.display())]
    Unreadable {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// One of them does not hold what it should.
    #[error("expected {expected} in PEM in {key} {}", path.display())]
    Senseless {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// They do not go together.
    #[error("could not use listen.tls.certificate_file {} with its key", path.display())]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
}

impl TlsError {
    /// Returns the key of the configuration that it is about.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. } | Self::Senseless { key, .. } => key,
            Self::Unusable { .. } => "listen.tls.certificate_file",
        }
    }
}

/// What new connections speak TLS with.
#[derive(Debug)]
pub struct Certificates {
    files: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
    /// Digest of what the files held when they were last looked at.
    seen: Mutex<Vec<u8>>,
}

/// What the files hold: certificate, key, and roots of clients where there are any.
struct Contents(Vec<Vec<u8>>);

impl Contents {
    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        for bytes in &self.0 {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        }
        context.finish().as_ref().to_vec()
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn load(files: &TlsConfig) -> Result<Self, TlsError> {
        let found = read(files)?;
        let current = RwLock::new(Arc::new(settings(files, &found)?));
        Ok(Self { files: files.clone(), current, seen: Mutex::new(found.digest()) })
    }

    /// Returns what a new connection speaks TLS with.
    pub fn current(&self) -> Arc<ServerConfig> {
        // One pointer is not half written.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files; returns whether what they hold is new and used from now on.
    ///
    /// # Errors
    /// When they have changed, and cannot be used. The same contents are not complained of twice.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let found = read(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Files that cannot be read are all alike.
        let digest = found.as_ref().map(Contents::digest).unwrap_or_default();
        if digest == *seen {
            return Ok(false);
        }
        *seen = digest;
        let settings = settings(&self.files, &found?)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        Ok(true)
    }

    /// Looks at the files from time to time. Never ends.
    pub async fn keep_fresh(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut interval = time::interval(INTERVAL);
        loop {
            interval.tick().await;
            let certificates = Arc::clone(&self);
            match spawn_blocking(move || certificates.refresh()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    metrics.reloads.certificate(ReloadOutcome::Accepted);
                    tracing::info!("certificate of the listener replaced");
                }
                Ok(Err(error)) => {
                    metrics.reloads.certificate(ReloadOutcome::Rejected);
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "certificate of the listener rejected, and the last one stays");
                }
                Err(_panicked) => metrics.panicked(),
            }
        }
    }
}

fn read(files: &TlsConfig) -> Result<Contents, TlsError> {
    let keys = [
        ("listen.tls.certificate_file", &files.certificate_file),
        ("listen.tls.key_file", &files.key_file),
        ("listen.tls.client_ca_file", &files.client_ca_file),
    ];
    let given = keys.into_iter().filter(|(_, path)| !path.as_os_str().is_empty());
    let contents = given.map(|(key, path)| match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(source) => Err(TlsError::Unreadable { key, path: path.clone(), source }),
    });
    contents.collect::<Result<_, _>>().map(Contents)
}

fn settings(files: &TlsConfig, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let text = |index: usize| contents.0.get(index).map_or(&[][..], Vec::as_slice);
    let chain = certificates(text(0), "listen.tls.certificate_file", &files.certificate_file)?;
    let key = PrivateKeyDer::from_pem_slice(text(1)).map_err(|_| TlsError::Senseless {
        key: "listen.tls.key_file",
        path: files.key_file.clone(),
        expected: "a private key",
    })?;
    let unusable = |source| TlsError::Unusable { path: files.certificate_file.clone(), source };
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match clients(files, text(2))? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut settings = builder.with_single_cert(chain, key).map_err(unusable)?;
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(settings)
}

/// Returns who checks clients' certificates, where any are asked for.
fn clients(files: &TlsConfig, text: &[u8]) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    const KEY: &str = "listen.tls.client_ca_file";
    let path = &files.client_ca_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let senseless = || TlsError::Senseless { key: KEY, path: path.clone(), expected: "root certificates" };
    let mut roots = RootCertStore::empty();
    for root in certificates(text, KEY, path)? {
        roots.add(root).map_err(|_| senseless())?;
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map(Some).map_err(|_| senseless())
}

fn certificates(
    text: &[u8],
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(|| TlsError::Senseless {
        key,
        path: path.to_owned(),
        expected: "a certificate",
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Writes a certificate of its own key, and returns both texts.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["box.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    struct Files {
        folder: tempfile::TempDir,
        config: TlsConfig,
    }

    impl Files {
        fn holding((certificate, key): &(String, String)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let config = TlsConfig {
                certificate_file: path("tls.crt"),
                key_file: path("tls.key"),
                client_ca_file: PathBuf::new(),
            };
            let files = Self { folder, config };
            files.write("tls.crt", certificate);
            files.write("tls.key", key);
            files
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }
    }

    #[test]
    fn a_renewed_certificate_is_used_once_its_key_is_there_too() {
        let (old, new) = (pair(), pair());
        let files = Files::holding(&old);
        let certificates = Certificates::load(&files.config).unwrap();
        let before = certificates.current();
        assert!(!certificates.refresh().unwrap());

        files.write("tls.crt", &new.0);
        let error = certificates.refresh().unwrap_err();
        assert!(error.to_string().starts_with("could not use listen.tls.certificate_file /"), "{error}");
        assert!(!certificates.refresh().unwrap(), "the same is not complained of twice");
        assert!(Arc::ptr_eq(&before, &certificates.current()));

        files.write("tls.key", &new.1);
        assert!(certificates.refresh().unwrap());
        assert!(!Arc::ptr_eq(&before, &certificates.current()));
    }

    #[test]
    fn files_that_are_gone_for_a_while_change_nothing() {
        let texts = pair();
        let files = Files::holding(&texts);
        let certificates = Certificates::load(&files.config).unwrap();
        fs::remove_file(&files.config.key_file).unwrap();
        assert_eq!(certificates.refresh().unwrap_err().key(), "listen.tls.key_file");
        assert!(!certificates.refresh().unwrap());
        files.write("tls.key", &texts.1);
        assert!(certificates.refresh().unwrap());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_file_and_never_with_a_key() {
        let texts = pair();
        let check = |change: &dyn Fn(&mut Files), key: &str, part: &str| {
            let mut files = Files::holding(&texts);
            change(&mut files);
            let error = Certificates::load(&files.config).unwrap_err();
            let told = format!("{error}: {:?} {error:?}", error.source());
            assert_eq!(error.key(), key, "{told}");
            assert!(told.contains(part) && !told.contains("PRIVATE"), "{told}");
        };
        let (crt, key) = ("listen.tls.certificate_file", "listen.tls.key_file");
        check(
            &|files| files.write("tls.crt", ""),
            crt,
            "expected a certificate in PEM in listen.tls.certificate_file /",
        );
        check(
            &|files| files.write("tls.key", &texts.0),
            key,
            "expected a private key in PEM in listen.tls.key_file /",
        );
        check(
            &|files| files.config.key_file = "/nonexistent/k".into(),
            key,
            "could not read listen.tls.key_file /nonexistent/k",
        );
        check(&|files| files.write("tls.key", &pair().1), crt, "could not use listen.tls.certificate_file /");
        let roots = |files: &mut Files| {
            files.write("ca.crt", "nothing");
            files.config.client_ca_file = files.folder.path().join("ca.crt");
        };
        check(
            &roots,
            "listen.tls.client_ca_file",
            "expected a certificate in PEM in listen.tls.client_ca_file /",
        );
    }
}
