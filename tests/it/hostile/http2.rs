//! Hostile upstreams that speak HTTP/2: what each sends for a request, frame by frame, and what the client sees.
//!
//! After each row the same is asked again of a good one, as in the tables of HTTP/1.1.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::CertifiedKey;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::hostile::Kept::{It, Nothing};
use crate::hostile::Sees::{Refused, Whole};
use crate::hostile::{Kept, Plans, Scene, Sees, good, start};
use crate::support::frames::{Ends, GO_AWAY, HEADERS, RESET, block, data, frame, headers, read};

/// What is sent for a request on a stream.
type Plan = fn(u32) -> Vec<u8>;

/// A trick, what is sent, what the client sees, and what is kept.
type Row = (&'static str, Plan, Sees, Kept);

const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const OK: (&[u8], &[u8]) = (b":status", b"200");
const JSON: (&[u8], &[u8]) = (b"content-type", b"application/json");

/// Sends a good head with further fields, and a body.
fn with(stream: u32, further: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let fields = [&[OK, JSON], further].concat();
    [headers(stream, &fields, Ends::No), data(stream, body, Ends::Yes)].concat()
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

const ROWS: &[Row] = &[
    ("a good answer", |stream| with(stream, &[], b"[1]"), Whole(200, "[1]"), It),
    (
        "an interim answer",
        |stream| {
            [
                headers(stream, &[(b":status", b"103"), (b"link", b"</a>")], Ends::No),
                with(stream, &[], b"[1]"),
            ]
            .concat()
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "1,000 interim answers",
        |stream| {
            [headers(stream, &[(b":status", b"103")], Ends::No).repeat(1_000), with(stream, &[], b"[1]")]
                .concat()
        },
        Whole(200, "[1]"),
        It,
    ),
    ("a reset", |stream| reset(stream, 2), Refused(502), Nothing),
    (
        "a reset within the body",
        |stream| {
            [headers(stream, &[OK, JSON], Ends::No), data(stream, b"[1", Ends::No), reset(stream, 0)].concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "an end within the body",
        |stream| with(stream, &[(b"content-length", b"9")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a body that is longer than its length",
        |stream| with(stream, &[(b"content-length", b"2")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "two lengths",
        |stream| with(stream, &[(b"content-length", b"3"), (b"content-length", b"4")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a length that is none",
        |stream| with(stream, &[(b"content-length", b"+3")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "transfer-encoding",
        |stream| with(stream, &[(b"transfer-encoding", b"chunked")], b"3\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    ("connection", |stream| with(stream, &[(b"connection", b"close")], b"[1]"), Refused(502), Nothing),
    ("a name in capitals", |stream| with(stream, &[(b"X-A", b"b")], b"[1]"), Refused(502), Nothing),
    (
        "a line end in a value",
        |stream| with(stream, &[(b"x-a", b"b\r\nset-cookie: evil=1")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a line end in a name",
        |stream| with(stream, &[(b"x-a: b\r\nset-cookie", b"evil=1")], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "no status",
        |stream| [headers(stream, &[JSON], Ends::No), data(stream, b"[1]", Ends::Yes)].concat(),
        Refused(502),
        Nothing,
    ),
    (
        "a status that is none",
        |stream| headers(stream, &[(b":status", b"OK")], Ends::Yes),
        Refused(502),
        Nothing,
    ),
    ("status 99", |stream| headers(stream, &[(b":status", b"099")], Ends::Yes), Refused(502), Nothing),
    ("another protocol", |stream| headers(stream, &[(b":status", b"101")], Ends::Yes), Refused(502), Nothing),
    (
        "a path in an answer",
        |stream| headers(stream, &[OK, (b":path", b"/")], Ends::Yes),
        Whole(200, ""),
        Nothing,
    ),
    (
        "a body before the head",
        |stream| [data(stream, b"[1]", Ends::No), with(stream, &[], b"[1]")].concat(),
        Refused(502),
        Nothing,
    ),
    (
        "trailers",
        |stream| {
            [
                headers(stream, &[OK, JSON], Ends::No),
                data(stream, b"[1]", Ends::No),
                headers(stream, &[(b"set-cookie", b"evil=1"), (b"content-length", b"9")], Ends::Yes),
            ]
            .concat()
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "a field of a megabyte",
        |stream| with(stream, &[(b"x-a", &[b'b'; 1 << 20])], b"[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "an endless head",
        |stream| {
            [
                frame(HEADERS, 0, stream, &block(&[OK])),
                frame(CONTINUATION, 0, stream, &block(&[(b"x-a", &[b'b'; 10_000])])).repeat(1_000),
            ]
            .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "a head of empty continuations",
        |stream| {
            [frame(HEADERS, 0, stream, &block(&[OK])), frame(CONTINUATION, 0, stream, &[]).repeat(10_000)]
                .concat()
        },
        Refused(502),
        Nothing,
    ),
    ("a frame that is too large", |stream| frame(HEADERS, 4, stream, &[0; 1 << 20]), Refused(502), Nothing),
    (
        "fields that cannot be decoded",
        |stream| frame(HEADERS, 5, stream, &[0xff; 100]),
        Refused(502),
        Nothing,
    ),
    (
        "a promise",
        |stream| {
            [
                frame(
                    PUSH_PROMISE,
                    4,
                    stream,
                    &[&2_u32.to_be_bytes()[..], &block(&[(b":method", b"GET"), (b":path", b"/")])].concat(),
                ),
                with(stream, &[], b"[1]"),
            ]
            .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "an answer on another stream",
        |stream| [with(stream + 2, &[], b"[\"evil\"]"), with(stream, &[], b"[1]")].concat(),
        Refused(502),
        Nothing,
    ),
    (
        "a window beyond its bounds",
        |stream| {
            [frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), with(stream, &[], b"[1]")].concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "settings that are none",
        |_| frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        Refused(502),
        Nothing,
    ),
    ("HTTP/1.1", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]".to_vec(), Refused(502), Nothing),
    (
        "10,000 settings",
        |stream| [frame(SETTINGS, 0, 0, &[]).repeat(10_000), with(stream, &[], b"[1]")].concat(),
        Whole(200, "[1]"),
        It,
    ),
    (
        "10,000 pings",
        |stream| [frame(PING, 0, 0, &[0; 8]).repeat(10_000), with(stream, &[], b"[1]")].concat(),
        Whole(200, "[1]"),
        It,
    ),
    (
        "100,000 empty frames",
        |stream| {
            [
                headers(stream, &[OK, JSON], Ends::No),
                data(stream, b"", Ends::No).repeat(100_000),
                data(stream, b"[1]", Ends::Yes),
            ]
            .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "frames of a kind that nobody knows",
        |stream| [frame(0xfa, 0xff, stream, &[0; 100]).repeat(100), with(stream, &[], b"[1]")].concat(),
        Whole(200, "[1]"),
        It,
    ),
    ("a farewell in place of an answer", |_| go_away(0, 0), Refused(502), Nothing),
    ("a farewell for calm", |_| go_away(0, 11), Refused(502), Nothing),
    (
        "a farewell before the answer",
        |stream| [go_away(stream, 0), with(stream, &[], b"[1]")].concat(),
        Whole(200, "[1]"),
        It,
    ),
];

/// A TLS server that speaks HTTP/2 in its own way, to one row at a time: it does not read what is asked.
struct Upstream {
    plans: Plans<Plan>,
    /// The organization that is asked for, and how often it was.
    organization: Mutex<(String, usize)>,
}

impl Upstream {
    fn organization(&self) -> MutexGuard<'_, (String, usize)> {
        self.organization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            let (upstream, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move { upstream.serve(stream, acceptor).await });
        }
    }

    /// Answers every request on a connection; ends with it.
    async fn serve(&self, stream: TcpStream, acceptor: TlsAcceptor) -> Option<()> {
        let mut stream = acceptor.accept(stream).await.ok()?;
        stream.read_exact(&mut [0; 24]).await.ok()?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
        loop {
            let (kind, _, number, _) = read(&mut stream).await?;
            if kind == HEADERS {
                stream.write_all(&self.answer(number)).await.ok()?;
                stream.flush().await.ok()?;
            }
        }
    }

    fn answer(&self, stream: u32) -> Vec<u8> {
        let mut organization = self.organization();
        organization.1 += 1;
        let plan = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&organization.0).copied();
        plan.map_or_else(|| with(stream, &[], good(&organization.0).as_bytes()), |plan| plan(stream))
    }
}

/// Returns a server's side of TLS for HTTP/2, and the file that makes a client trust it.
fn tls() -> (TlsAcceptor, NamedTempFile) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let chain = vec![cert.der().clone()];
    let mut config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_cost_their_own_request_alone() {
    let (acceptor, file) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let plans = Plans::default();
    let upstream = Arc::new(Upstream { plans: Arc::clone(&plans), organization: Mutex::default() });
    let accepting = tokio::spawn(Arc::clone(&upstream).accept(listener, acceptor));
    let roots = ("SENTRYBOX_UPSTREAM__CA_FILE", file.path().to_str().unwrap());
    let binary = start(&origin, &[roots, ("SENTRYBOX_UPSTREAM__ROOTS", "bundled")]);
    let count = {
        let upstream = Arc::clone(&upstream);
        Arc::new(move |_: &str| upstream.organization().1)
    };
    let scene = Scene { address: binary.address, plans, count };
    let mut wrong = Vec::new();
    for (number, (trick, plan, sees, kept)) in ROWS.iter().enumerate() {
        let organization = format!("row-{number}");
        *upstream.organization() = (organization.clone(), 0);
        let found = scene.judge(&organization, *plan, (*sees, *kept)).await;
        wrong.extend(found.into_iter().map(|found| format!("{trick}: {found}")));
    }
    accepting.abort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
