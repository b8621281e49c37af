//! Decides which certificates upstream may show.
//!
//! Roots are the system's or the bundled ones, and those of `upstream.ca_file` besides. The cryptography is named
//! here and not left to the process-wide default, so that no other library can change it.
//!
//! Invariant: no configuration turns verification off. Not here: connecting (`connector`), ALPN (hyper-rustls sets it).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::config::{Roots, UpstreamConfig};
use crate::upstream::error::UpstreamSetupError;

/// Builds the TLS settings for upstream, without ALPN.
///
/// # Errors
///
/// When `upstream.ca_file` cannot be used, or the system has no roots and nothing else was named.
pub fn client_config(config: &UpstreamConfig) -> Result<ClientConfig, UpstreamSetupError> {
    let further = further_roots(&config.ca_file)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    with_roots(config.roots, further, provider).map_err(|source| UpstreamSetupError::Roots { source })
}

fn with_roots(
    roots: Roots,
    further: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Roots::System => {
            let verifier = Verifier::new_with_extra_roots(further, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Roots::Bundled => {
            let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            further.into_iter().try_for_each(|root| store.add(root))?;
            builder.with_root_certificates(store)
        }
    };
    Ok(builder.with_no_client_auth())
}

fn further_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamSetupError> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let roots = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| UpstreamSetupError::CaFile { path: path.to_owned(), source })?;
    if roots.is_empty() {
        return Err(UpstreamSetupError::EmptyCaFile { path: path.to_owned() });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = further_roots(file.path()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_file_without_usable_roots_is_an_error_that_names_it() {
        check("", "found no certificate in upstream.ca_file /");
        check("nothing of the kind", "found no certificate in upstream.ca_file /");
        check(
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "could not read root certificates from upstream.ca_file /",
        );
        let missing = further_roots(Path::new("/nonexistent/roots.pem")).unwrap_err().to_string();
        assert_eq!(missing, "could not read root certificates from upstream.ca_file /nonexistent/roots.pem");
    }

    #[test]
    fn bundled_roots_need_no_file() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        assert!(with_roots(Roots::Bundled, further_roots(Path::new("")).unwrap(), provider).is_ok());
    }
}
