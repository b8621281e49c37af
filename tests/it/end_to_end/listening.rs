//! Every way in: several addresses, TLS with and without certificates of clients, Unix domain sockets.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::end_to_end::{LIST, OWNER, Stage, next_page, until};
use crate::support::binary::{Binary, sentrybox};
use crate::support::http::{Answer, get};

/// A certificate authority of a test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    text: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let (text, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(parameters, key), certificate: der, text }
    }

    /// Issues a certificate for a name, and returns it and its key in PEM.
    fn issue(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }
}

/// Files for TLS, and the environment that names them.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(authority: &Authority) -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.hold(&authority.issue("box.example"));
        files
    }

    fn hold(&self, (certificate, key): &(String, KeyPair)) {
        fs::write(self.folder.path().join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(self.folder.path().join("tls.crt"), certificate).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SENTRYBOX_LISTEN__TLS__CERTIFICATE_FILE", self.path("tls.crt")),
            ("SENTRYBOX_LISTEN__TLS__KEY_FILE", self.path("tls.key")),
        ]
    }
}

async fn stage(environment: &[(&str, String)]) -> Stage {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Stage::set(&environment).await
}

/// Returns where the binary says that it speaks TLS.
fn tls_address(stage: &Stage) -> SocketAddr {
    let output = stage.binary.output();
    let (_, rest) = output.split_once(" tls:").unwrap();
    rest.split(['"', ' ']).next().unwrap().parse().unwrap()
}

/// Connects over TLS, trusting an authority, perhaps with a certificate of one's own.
async fn connect(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&(String, KeyPair)>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => {
            use rustls::pki_types::pem::PemObject as _;
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("box.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// Sends a GET for the list on a stream.
async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        OWNER.iter().fold(Request::get(LIST).header("host", "box.example"), |request, (name, value)| {
            request.header(*name, *value)
        });
    let (head, body) = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await?.into_parts();
    Ok(Answer { status: head.status, fields: head.headers, body: body.collect().await?.to_bytes() })
}

fn is_hit(answer: &Answer) -> bool {
    answer.field("cache-status").contains("; hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ways_in_lead_to_one_cache_and_each_says_its_own_base() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    let socket = files.path("http.sock");
    let mut environment = files.environment();
    environment.push(("SENTRYBOX_LISTEN__ALSO", format!("tls:127.0.0.1:0,unix:{socket}")));
    environment.push(("SENTRYBOX_LISTEN__UNIX_MODE", "0600".to_owned()));
    let stage = stage(&environment).await;
    let page = format!("{LIST}?per_page=1");
    assert!(!is_hit(&get(stage.binary.address, LIST, OWNER).await));

    let over_tls = ask(connect(tls_address(&stage), &authority, None).await.unwrap()).await.unwrap();
    assert!(is_hit(&over_tls), "{over_tls:?}");
    let local = ask(UnixStream::connect(&socket).await.unwrap()).await.unwrap();
    assert!(is_hit(&local), "{local:?}");
    assert!(over_tls.field("link").contains("<https://box.example/api/0/"), "{over_tls:?}");
    assert!(local.field("link").contains("<http://box.example/api/0/"), "{local:?}");
    let own = get(stage.binary.address, &page, OWNER).await;
    assert!(next_page(&own).unwrap().starts_with(&stage.base()));
    stage.close().await;
    assert!(!Path::new(&socket).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old);
    let mut environment = files.environment();
    environment.push(("SENTRYBOX_LISTEN__ALSO", "tls:127.0.0.1:0".to_owned()));
    // One connection waits through all of it before it says anything.
    environment.push(("SENTRYBOX_LISTEN__FIRST_BYTE_TIMEOUT", "2m".to_owned()));
    let stage = stage(&environment).await;
    let address = tls_address(&stage);
    let kept = connect(address, &old, None).await.unwrap();
    assert!(connect(address, &new, None).await.is_err());

    fs::write(files.folder.path().join("tls.crt"), "nothing").unwrap();
    until(async || stage.binary.output().contains("certificate of the listener rejected")).await;
    assert!(connect(address, &old, None).await.is_ok(), "the last one stays");
    files.hold(&new.issue("box.example"));
    until(async || connect(address, &new, None).await.is_ok()).await;
    assert_eq!(ask(kept).await.unwrap().status.as_u16(), 200);
    let metrics = stage.ask(http::Method::GET, "/metrics").await;
    for outcome in ["accepted", "rejected"] {
        let sample = format!("sentrybox_certificate_reloads_total{{outcome=\"{outcome}\"}} ");
        let line = metrics.text().lines().find(|line| line.starts_with(&sample)).unwrap();
        assert!(!line.ends_with(" 0"), "{line}");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_clients_need_a_certificate_nobody_is_served_without() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::new(&authority);
    fs::write(files.folder.path().join("clients.crt"), &authority.text).unwrap();
    let mut environment = files.environment();
    environment.push(("SENTRYBOX_LISTEN__TLS__CLIENT_CA_FILE", files.path("clients.crt")));
    environment.push(("SENTRYBOX_LISTEN__ALSO", "tls:127.0.0.1:0".to_owned()));
    let stage = stage(&environment).await;
    let address = tls_address(&stage);
    let attempt = async |own: Option<(String, KeyPair)>| {
        // Over TLS 1.3 a client hears of it with the answer.
        let stream = connect(address, &authority, own.as_ref()).await.ok()?;
        ask(stream).await.ok().map(|answer| answer.status.as_u16())
    };
    assert_eq!(attempt(None).await, None);
    assert_eq!(attempt(Some(stranger.issue("somebody"))).await, None);
    assert_eq!(attempt(Some(authority.issue("somebody"))).await, Some(200));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_left_behind_by_a_killed_process_is_replaced() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("http.sock");
    let start = || {
        let mut command = sentrybox();
        command.args(["--upstream", "http://127.0.0.1:9"]);
        command.env("SENTRYBOX_LISTEN__ALSO", format!("unix:{}", socket.display()));
        Binary::start(command)
    };
    drop(start()); // Killed: it cleans nothing up.
    assert!(socket.exists());
    let _second = start();
    let answer = ask(UnixStream::connect(&socket).await.unwrap()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 502);
}
