//! Floods the proxy with requests that have nothing in common, and holds its memory to what the README promises.
//!
//! Floods over keep-alive connections: every request a URL of its own, then every request a token of its own, then both.
//! None ever hits, so all do nothing but fill the store and make it evict. Upstream is in this process: it answers
//! every GET with Sentry's fields and a list of 1 to 12 KiB. Measured is the proxy's resident memory as it tells it in
//! `/metrics`: idle (after one round of the same connections, and a purge), after each of the first two floods, and after the
//! purge of everything; and after each half of the third one how many series there are.
//!
//! Fails when one of the first two floods ends above 1.5 × `cache.max_bytes` + [`CONSTANT`], or the purge above idle +
//! [`SLACK`] after [`PATIENCE`], or when there are more than [`MOST_SERIES`], or the second half makes one.
//! Not here: how long anything takes; the proxy under test is a release build, this is not.
//!
//!     tests/soak/floods            200,000 requests each, cache.max_bytes as by default
//!     tests/soak/floods --short     20,000 requests each, cache.max_bytes = 64MiB
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::env;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Connections that are kept open by clients during a flood.
const CONNECTIONS: usize = 32;

/// How many requests each connection sends before memory is called idle.
const WARM_UP: u64 = 50;

/// What the process may need besides 1.5 × `cache.max_bytes`: code, threads, connections, bodies in flight.
const CONSTANT: Mebibytes = Mebibytes(48 << 20);

/// How much above idle it may stay after a purge.
const SLACK: Mebibytes = Mebibytes(32 << 20);

/// How long after the purge.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many paths and tokens must not make series.
const STRANGERS: u64 = 100_000;

/// Most series: routes, reasons and classes of the default configuration, with room for some more.
const MOST_SERIES: usize = 2_000;

/// Longest that a peer may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// The fields that Sentry sends with a list, but for its length.
const FIELDS: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Link: <https://sentry.io/api/0/organizations/?&cursor=0:0:1>; rel=\"previous\"; results=\"false\"; \
    cursor=\"0:0:1\", <https://sentry.io/api/0/organizations/?&cursor=0:100:0>; rel=\"next\"; results=\"true\"; \
    cursor=\"0:100:0\"\r\n\
    Allow: GET, POST, HEAD, OPTIONS\r\n\
    Access-Control-Allow-Methods: GET, POST, HEAD, OPTIONS\r\n\
    Access-Control-Allow-Headers: X-Sentry-Auth, X-Requested-With, Origin, Accept, Content-Type, Authentication, \
    Authorization, Content-Encoding, sentry-trace, baggage, X-CSRFToken\r\n\
    Access-Control-Expose-Headers: X-Sentry-Error, Retry-After\r\n\
    Access-Control-Allow-Origin: *\r\n\
    X-Sentry-Rate-Limit-Remaining: 39\r\n\
    X-Sentry-Rate-Limit-Limit: 40\r\n\
    X-Sentry-Rate-Limit-Reset: 1795460514\r\n\
    X-Sentry-Rate-Limit-ConcurrentRemaining: 24\r\n\
    X-Sentry-Rate-Limit-ConcurrentLimit: 25\r\n\
    Vary: Accept-Language, Cookie\r\n\
    Content-Language: en\r\n\
    X-Frame-Options: deny\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-XSS-Protection: 1; mode=block\r\n";

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    let upstream = upstream();
    let proxy = Proxy::start(&plan, upstream);
    let mut verdict = Verdict::default();

    proxy.flood(&Flood { requests: WARM_UP * CONNECTIONS as u64, first: 0, request: unique_url });
    proxy.purge();
    thread::sleep(Duration::from_secs(5));
    let idle = proxy.resident();
    println!("idle: {idle}");

    let bound = Mebibytes(plan.max_bytes.0 / 2 * 3 + CONSTANT.0);
    for (name, request) in [("urls", unique_url as RequestOf), ("tokens", unique_token)] {
        proxy.flood(&Flood { requests: plan.requests, first: 0, request });
        let stored = Mebibytes(proxy.metric("sentrybox_store_bytes"));
        println!("{name}: {} requests", plan.requests);
        // A flood that leaves room proves nothing; housekeeping may lag behind by a moment.
        let full = Mebibytes(plan.max_bytes.0 / 10 * 9)..=Mebibytes(plan.max_bytes.0 / 100 * 102);
        verdict.within(&format!("{name}, stored"), stored, &full);
        verdict.within(&format!("{name}, resident"), proxy.resident(), &(idle..=bound));
    }

    let series = [0, STRANGERS / 2].map(|first| {
        proxy.flood(&Flood { requests: STRANGERS / 2, first, request: stranger });
        let series = proxy.series();
        println!("strangers: {} paths and tokens, {series} series", first + STRANGERS / 2);
        series
    });
    verdict.bounded("series", series);

    proxy.purge();
    thread::sleep(PATIENCE);
    let bound = Mebibytes(idle.0 + SLACK.0);
    verdict.within("purged, resident", proxy.resident(), &(Mebibytes(0)..=bound));
    verdict.exit()
}

/// What is to be done.
struct Plan {
    binary: String,
    requests: u64,
    max_bytes: Mebibytes,
}

impl Plan {
    /// Reads `BINARY [--short]`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [binary] => {
                Self { binary: (*binary).to_owned(), requests: 200_000, max_bytes: Mebibytes(256 << 20) }
            }
            [binary, "--short"] => {
                Self { binary: (*binary).to_owned(), requests: 20_000, max_bytes: Mebibytes(64 << 20) }
            }
            _ => panic!("wants the path of a release build, and --short or nothing; see tests/soak/floods"),
        }
    }
}

/// Bytes, told in MiB.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 * 10 / (1 << 20);
        write!(formatter, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

/// What did not hold, so far.
#[derive(Default)]
struct Verdict {
    failures: u64,
}

impl Verdict {
    /// Prints a figure, and notes whether it lies where it must.
    fn within(&mut self, name: &str, measured: Mebibytes, range: &RangeInclusive<Mebibytes>) {
        let verdict = if range.contains(&measured) { "ok" } else { "FAILED" };
        println!("{name}: {measured}, within {} to {}: {verdict}", range.start(), range.end());
        self.failures += u64::from(!range.contains(&measured));
    }

    /// Notes whether there are as few series as there may be, and no more of them than before.
    fn bounded(&mut self, name: &str, [before, after]: [usize; 2]) {
        let most = before.min(MOST_SERIES);
        println!("{name}: {after}, at most {most}: {}", if after <= most { "ok" } else { "FAILED" });
        self.failures += u64::from(most < after);
    }

    fn exit(&self) -> ExitCode {
        if self.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Makes the target and the token of a flood's request by its number.
type RequestOf = fn(u64) -> (String, String);

/// A flood: how many requests, from which number on, and which.
struct Flood {
    requests: u64,
    first: u64,
    request: RequestOf,
}

fn unique_url(number: u64) -> (String, String) {
    (format!("/api/0/organizations/flood/projects/?query=team%3A{number}"), "sntryu_flood".to_owned())
}

fn unique_token(number: u64) -> (String, String) {
    ("/api/0/organizations/".to_owned(), format!("sntryu_{number:064x}"))
}

/// Makes paths that no rule knows and ones that rules know, each with a token of its own.
fn stranger(number: u64) -> (String, String) {
    let target = match number % 4 {
        0 => format!("/api/0/organizations/o{number}/projects/"),
        1 => format!("/api/0/organizations/flood/p{number}/"),
        2 => format!("/api/0/projects/flood/p{number}/keys/"),
        _ => format!("/api/0/n{number}/?query={number}"),
    };
    (target, format!("sntryu_{number:064x}"))
}

/// The proxy under test, in a process of its own.
struct Proxy {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Proxy {
    fn start(plan: &Plan, upstream: SocketAddr) -> Self {
        let mut command = Command::new(&plan.binary);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTRYBOX_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--upstream", &format!("http://{upstream}")])
            .env("SENTRYBOX_CACHE__MAX_BYTES", plan.max_bytes.0.to_string())
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (address, admin) = listening(&mut log);
        // Somebody must read the lines, or the proxy waits for it.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, admin }
    }

    /// Sends all requests of a flood, and fails unless each is answered with 200 and a whole body.
    fn flood(&self, flood: &Flood) {
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut connection = Connection::open(self.address);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if flood.requests <= number {
                            break;
                        }
                        let (target, token) = (flood.request)(flood.first + number);
                        let (head, _) = connection.exchange("GET", &target, &token);
                        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    }
                });
            }
        });
    }

    fn purge(&self) {
        let order = r#"{"everything":true,"mode":"hard"}"#;
        let (head, _) = Connection::open(self.admin).post("/purge", order);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }

    /// Returns how much memory the process has resident.
    fn resident(&self) -> Mebibytes {
        Mebibytes(self.metric("process_resident_memory_bytes"))
    }

    /// Returns how many series there are.
    fn series(&self) -> usize {
        let (_, text) = Connection::open(self.admin).exchange("GET", "/metrics", "");
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    /// Returns the value of a metric without labels.
    fn metric(&self, name: &str) -> u64 {
        let (_, text) = Connection::open(self.admin).exchange("GET", "/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log up to the line that says where the proxy listens.
fn listening(log: &mut impl BufRead) -> (SocketAddr, SocketAddr) {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the proxy ended; it said: {said}");
        said.push_str(&line);
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let address = |name| event.get(name)?.as_str()?.parse().ok();
        if let (Some(listen), Some(admin)) = (address("listen"), address("admin")) {
            return (listen, admin);
        }
    }
}

/// A keep-alive connection of a client.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(tuned(TcpStream::connect(address).unwrap())) }
    }

    /// Sends a request and reads the whole answer: its head and its body.
    fn exchange(&mut self, method: &str, target: &str, token: &str) -> (String, String) {
        let authorization =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}\r\n"))
    }

    /// Sends a body, and reads the whole answer.
    fn post(&mut self, target: &str, body: &str) -> (String, String) {
        let length = body.len();
        self.send(&format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn send(&mut self, request: &str) -> (String, String) {
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut self.stream).unwrap();
        let length = field(&head, "content-length").unwrap_or_else(|| panic!("no length in {head}"));
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }
}

/// Returns the value of a field in a head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Reads up to and with the empty line; `None` when the stream ends before.
fn read_head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while stream.read_line(&mut head).ok()? > 0 {
        if head.ends_with("\r\n\r\n") {
            return Some(head);
        }
    }
    None
}

fn tuned(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream
}

/// Starts upstream: a thread per connection, for as long as this process lives.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = BufReader::new(tuned(stream.unwrap()));
            thread::spawn(move || answer_all(stream));
        }
    });
    address
}

/// Answers every request of a connection, until the proxy closes it.
fn answer_all(mut stream: BufReader<TcpStream>) {
    for number in 0_usize.. {
        if read_head(&mut stream).is_none() {
            return;
        }
        // 2 to 24 organizations of half a KiB, in an order without a pattern.
        let body = list(2 + number.wrapping_mul(2_654_435_761) / 1024 % 23);
        let answer = format!("{FIELDS}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Returns a list of organizations in JSON.
fn list(count: usize) -> String {
    let organization = format!(
        r#"{{"id":"1","slug":"flood","name":"{}","features":["{}"],"links":{{"organizationUrl":"https://flood.sentry.io","regionUrl":"https://us.sentry.io"}}}}"#,
        "n".repeat(60),
        "f".repeat(290),
    );
    format!("[{}]", vec![organization; count].join(","))
}
