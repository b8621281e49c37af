//! An upstream that misbehaves as it is told: HTTP/1.1 over TLS, byte by byte.
//!
//! Left alone it answers like Sentry: validators, links to further pages, errors in JSON. It knows the token of each request,
//! and counts writes: one that arrives twice is an error of the proxy's.
//! Not here: when which fault befalls (`schedule`), what it excuses (`fault`).

use std::collections::HashSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ask::LARGE;
use crate::authority::Authority;
use crate::fault::Fault;
use crate::judge::{Judge, lock};
use crate::outcome::UPSTREAMS_OWN;
use crate::proxy::free_addresses;
use crate::random::Random;
use crate::told;

/// Longer than any deadline of the proxy's.
const FOR_EVER: Duration = Duration::from_secs(15);

/// How long a resource stays as it is, in milliseconds.
const CHANGE: u128 = 5_000;

/// How many pages a list has.
const PAGES: u64 = 5;

/// What upstream is told.
#[derive(Debug)]
struct Weather {
    authority: String,
    faults: Mutex<Vec<Fault>>,
    is_listening: watch::Sender<bool>,
    writes: Mutex<HashSet<u64>>,
    requests: AtomicU64,
    judge: Arc<Judge>,
}

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    weather: Arc<Weather>,
}

type Connection = BufReader<TlsStream<TcpStream>>;

/// A request, as far as it matters.
#[derive(Debug, Default)]
struct Asked {
    method: String,
    target: String,
    mark: Option<u64>,
    etag: Option<String>,
    length: u64,
    is_chunked: bool,
    body: Vec<u8>,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    Reset,
}

impl Upstream {
    pub(crate) async fn start(authority: &Authority, judge: Arc<Judge>) -> Self {
        let [address] = free_addresses();
        let listener = TcpListener::bind(address).await.unwrap();
        let weather = Arc::new(Weather {
            authority: format!("https://{address}"),
            faults: Mutex::default(),
            is_listening: watch::Sender::new(true),
            writes: Mutex::default(),
            requests: AtomicU64::new(0),
            judge,
        });
        tokio::spawn(listen(listener, authority.server(), Arc::clone(&weather)));
        Self { address, weather }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a fault befall some of the answers.
    pub(crate) fn begin(&self, fault: Fault) {
        lock(&self.weather.faults).push(fault);
        if fault == Fault::Unreachable {
            self.weather.is_listening.send_replace(false);
        }
    }

    /// Lets it befall none any more.
    pub(crate) fn end(&self, fault: Fault) {
        lock(&self.weather.faults).retain(|current| *current != fault);
        if fault == Fault::Unreachable {
            self.weather.is_listening.send_replace(true);
        }
    }

    /// Returns how many requests have arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.weather.requests.load(Ordering::Relaxed)
    }
}

impl Weather {
    /// Returns what befalls the next answer.
    fn befalls(&self, random: &mut Random) -> Option<Fault> {
        let faults = lock(&self.faults).clone();
        // Handshakes are over by then.
        faults.into_iter().find(|fault| *fault != Fault::SlowTls && random.below(100) < fault.share())
    }

    /// Returns whether a fault is on.
    fn is(&self, fault: Fault) -> bool {
        lock(&self.faults).contains(&fault)
    }
}

/// Accepts connections, but for the times in which nobody listens.
async fn listen(listener: TcpListener, server: Arc<ServerConfig>, weather: Arc<Weather>) {
    let address = listener.local_addr().unwrap();
    let (mut listener, mut is_listening) = (Some(listener), weather.is_listening.subscribe());
    for number in 0_u64.. {
        let Some(current) = &listener else {
            is_listening.wait_for(|is| *is).await.unwrap();
            listener = Some(TcpListener::bind(address).await.unwrap());
            continue;
        };
        tokio::select! {
            accepted = current.accept() => if let Ok((stream, _)) = accepted {
                let acceptor = TlsAcceptor::from(Arc::clone(&server));
                tokio::spawn(converse(stream, acceptor, (Arc::clone(&weather), Random::seeded(number))));
            },
            _ = is_listening.wait_for(|is| !*is) => listener = None,
        }
    }
}

/// Answers all requests of a connection.
async fn converse(stream: TcpStream, tls: TlsAcceptor, (weather, mut random): (Arc<Weather>, Random)) {
    if weather.is(Fault::SlowTls) && random.below(100) < Fault::SlowTls.share() {
        sleep(Duration::from_millis(random.one_of(&[300, 3_000]))).await;
    }
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else { return };
    let mut connection = BufReader::new(stream);
    while let Some(asked) = read(&mut connection).await {
        weather.requests.fetch_add(1, Ordering::Relaxed);
        if weather.is(Fault::Unreachable) {
            break;
        }
        let fault = weather.befalls(&mut random);
        let then = answer(&mut connection, &asked, (&weather, &mut random, fault)).await;
        match then.unwrap_or(Then::Close) {
            Then::Keep if weather.is(Fault::SlowTls) => break,
            Then::Keep => {}
            Then::Close => break,
            Then::Reset => {
                let _ = connection.get_ref().get_ref().0.set_zero_linger();
                return;
            }
        }
    }
    let _ = connection.get_mut().shutdown().await;
}

/// Reads a request; `None` when there is none, or not all of it.
async fn read(connection: &mut Connection) -> Option<Asked> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let mut words = line.split(' ');
    let mut asked =
        Asked { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Asked::default() };
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.mark = told::mark_of(value),
            "if-none-match" => asked.etag = Some(value.to_owned()),
            "content-length" => asked.length = value.parse().ok()?,
            "transfer-encoding" => asked.is_chunked = true,
            _ => {}
        }
    }
    if asked.is_chunked {
        read_chunks(connection, &mut asked.body).await?;
    } else {
        connection.take(asked.length).read_to_end(&mut asked.body).await.ok()?;
        (asked.body.len() as u64 == asked.length).then_some(())?;
    }
    Some(asked)
}

async fn read_chunks(connection: &mut Connection, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        let length = u64::from_str_radix(line.trim_end(), 16).ok()?;
        let before = body.len() as u64;
        connection.take(length).read_to_end(body).await.ok()?;
        (body.len() as u64 == before + length).then_some(())?;
        line.clear();
        connection.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        if length == 0 {
            return Some(());
        }
    }
}

type Circumstances<'a> = (&'a Weather, &'a mut Random, Option<Fault>);

async fn answer(
    connection: &mut Connection,
    asked: &Asked,
    (weather, random, fault): Circumstances<'_>,
) -> std::io::Result<Then> {
    note_write(asked, weather);
    let (status, fields, body) = content(asked, weather);
    let is_bare = asked.method == "HEAD" || status.starts_with("304");
    let length =
        if status.starts_with("304") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status}\r\n{fields}{length}\r\n");
    let body = if is_bare { "" } else { body.as_str() };
    if let Some(fault) = fault {
        return misbehave(connection, (&head, body), (fault, asked, random)).await;
    }
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.flush().await?;
    Ok(Then::Keep)
}

/// Counts a write.
fn note_write(asked: &Asked, weather: &Weather) {
    let said = serde_json::from_slice::<serde_json::Value>(&asked.body).ok();
    if let Some(number) = said.and_then(|body| body.get("write")?.as_u64())
        && !lock(&weather.writes).insert(number)
    {
        weather.judge.error(&format!("write {number} arrived twice"));
    }
}

/// Returns what is answered when nothing goes wrong.
fn content(asked: &Asked, weather: &Weather) -> (&'static str, String, String) {
    let now = weather.judge.now();
    let Some(mark) = asked.mark else {
        let body = r#"{"detail":"upstream knows no such token"}"#.to_owned();
        return ("401 Unauthorized", "Content-Type: application/json\r\n".to_owned(), body);
    };
    let named = told::sum_of(format!("{mark} {}", asked.target).as_bytes());
    let mut fields = "Content-Type: application/json\r\nVary: Accept-Language, Cookie\r\n".to_owned();
    let changed = now.as_millis() / CHANGE;
    let etag = format!("\"{named:016x}-{changed}\"");
    // Sentry has validators for few things.
    if named.is_multiple_of(2) || asked.target.contains("/members/") {
        let _ = write!(fields, "ETag: {etag}\r\n");
        if asked.etag.as_ref() == Some(&etag) {
            return ("304 Not Modified", fields, String::new());
        }
    }
    if let Some((path, cursor)) = asked.target.split_once("?cursor=0:") {
        let page: u64 = cursor.split(':').next().and_then(|page| page.parse().ok()).unwrap_or_default();
        let (next, more) = (page + 1, page + 1 < PAGES);
        let origin = &weather.authority;
        let _ = write!(
            fields,
            "Link: <{origin}{path}?cursor=0:0:1>; rel=\"previous\"; results=\"false\"; cursor=\"0:0:1\", \
             <{origin}{path}?cursor=0:{next}:0>; rel=\"next\"; results=\"{more}\"; cursor=\"0:{next}:0\"\r\n"
        );
    }
    let is_large = asked.target.starts_with(LARGE) || asked.target.starts_with("/api/0/projects/");
    let filling = if is_large { 300 << 10 } else { usize::try_from(named % 6_000).unwrap() };
    ("200 OK", fields, told::body(mark, &asked.target, now, filling))
}

async fn misbehave(
    connection: &mut Connection,
    (head, body): (&str, &str),
    (fault, asked, random): (Fault, &Asked, &mut Random),
) -> std::io::Result<Then> {
    let half = body.get(..body.len() / 2).unwrap_or_default();
    match fault {
        Fault::ResetHead => {
            let some = random.one_of(&["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Le"]);
            send(connection, some).await?;
            Ok(Then::Reset)
        }
        Fault::ResetBody => {
            send(connection, &format!("{head}{half}")).await?;
            Ok(if body.is_empty() { Then::Keep } else { Then::Reset })
        }
        Fault::Truncated => {
            send(connection, &format!("{head}{half}")).await?;
            Ok(if body.is_empty() { Then::Keep } else { Then::Close })
        }
        Fault::Hang => {
            if random.below(2) == 0 {
                send(connection, &format!("{head}{half}")).await?;
            }
            sleep(FOR_EVER).await;
            Ok(Then::Close)
        }
        Fault::ServerErrors => say(connection, error(random)).await,
        Fault::Limited => say(connection, ("429 Too Many Requests", "Retry-After: 1\r\n")).await,
        Fault::SlowBytes => {
            let pause = random.one_of(&[50, 50, 50, 1_000]);
            send(connection, head).await?;
            dribble(connection, body, Duration::from_millis(pause)).await?;
            Ok(Then::Keep)
        }
        Fault::OverLong => {
            // Somebody else's answer: of another token, for another target.
            let foreign = told::body(99, "/api/0/organizations/foreign/", Duration::ZERO, 50);
            let foreign = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{foreign}", foreign.len());
            send(connection, &format!("{head}{body}{foreign}")).await?;
            Ok(Then::Keep)
        }
        Fault::Interim => {
            let count = random.one_of(&[3_usize, 50, 20_000]);
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n".repeat(count);
            send(connection, &interim).await?;
            send(connection, &format!("{head}{body}")).await?;
            Ok(Then::Keep)
        }
        _ => panic!("{fault:?} is none of upstream's: {asked:?}"),
    }
}

async fn send(connection: &mut Connection, text: &str) -> std::io::Result<()> {
    connection.write_all(text.as_bytes()).await?;
    connection.flush().await
}

/// Returns one of the errors that upstream has, with a field.
fn error(random: &mut Random) -> (&'static str, &'static str) {
    random.one_of(&[
        ("500 Internal Server Error", ""),
        ("502 Bad Gateway", "Content-Type: text/html\r\n"),
        ("503 Service Unavailable", "Retry-After: 1\r\n"),
        ("504 Gateway Timeout", "Content-Type: text/html\r\n"),
    ])
}

async fn say(
    connection: &mut Connection,
    (status, fields): (&'static str, &'static str),
) -> std::io::Result<Then> {
    let body = if fields.contains("text/html") {
        "<html><body>upstream's edge says no</body></html>".to_owned()
    } else {
        format!(r#"{{"detail":"upstream says {status}"}}"#)
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{fields}{UPSTREAMS_OWN}: {status}\r\nContent-Length: {length}\r\n\r\n");
    send(connection, &format!("{head}{body}")).await?;
    // It may have been a HEAD, which has no body: nothing else is said on this connection.
    Ok(Then::Close)
}

/// Sends a body in some pieces, with a pause after each.
async fn dribble(connection: &mut Connection, body: &str, pause: Duration) -> std::io::Result<()> {
    let size = (body.len() / 16).max(1);
    for piece in body.as_bytes().chunks(size) {
        connection.write_all(piece).await?;
        connection.flush().await?;
        sleep(pause).await;
    }
    Ok(())
}
