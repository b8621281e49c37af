//! Replays whole answers of a real Sentry server through the built binary, byte for byte.
//!
//! The recordings lie beside the repository, in `../shared/recordings`, and not in it: without them there is nothing to
//! do here. Each pair is asked for over HTTP, with the credential that it names, before an upstream that answers with
//! the recorded bytes; then once more, if its answer may be stored. Expected is what was recorded, but for what the
//! proxy is there to change, which [`expected`] spells out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::binary::{Binary, sentrybox};
use crate::support::http::{Answer, send};

/// Where the recordings are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/recordings");

/// Whom the recorded server spoke of itself as, in `Link` and in bodies.
const SENTRY: &str = "https://sentry.io";

/// Fields that are true only for the answer that they came with.
const LIMITS: &str = "x-sentry-rate-limit-";

/// One request and its answer.
#[derive(Debug, Clone)]
struct Recording {
    name: String,
    method: Method,
    target: String,
    fields: Vec<(String, String)>,
    body: String,
    answer: Vec<u8>,
}

/// Fields by name, lower-cased, and a body.
#[derive(Debug, PartialEq)]
struct Message {
    status: u16,
    fields: BTreeMap<String, Vec<String>>,
    body: String,
}

impl Recording {
    fn read(request: &Path) -> Self {
        let text = fs::read_to_string(request).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self {
            name: request.file_stem().unwrap().to_str().unwrap().to_owned(),
            method: method.parse().unwrap(),
            target: target.to_owned(),
            fields: lines.map(field).collect(),
            body: body.trim_end().to_owned(),
            answer: fs::read(request.with_extension("response")).unwrap(),
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = Request::builder().method(&self.method).uri(&self.target);
        let request = self.fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(Full::from(self.body.clone())).unwrap()
    }

    /// Returns the recorded answer.
    fn recorded(&self) -> Message {
        let end = self.answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let (head, body) = self.answer.split_at(end + 4);
        let mut lines = std::str::from_utf8(head).unwrap().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut fields = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            fields.entry(name.to_ascii_lowercase()).or_default().push(value.to_owned());
        }
        Message { status, fields, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Returns whether the answer to this request says where organizations live, in the place that is rewritten.
    fn names_regions(&self) -> bool {
        let path = self.target.split('?').next().unwrap();
        let below = path.strip_prefix("/api/0/organizations/");
        below.is_some_and(|below| below.matches('/').count() == usize::from(!below.is_empty()))
    }

    /// Returns whether the answer may be stored: a GET of a known route with a credential, and JSON that says 200, or
    /// 404 for a moment.
    fn is_storable(&self) -> bool {
        let Message { status, fields, .. } = self.recorded();
        self.method == Method::GET
            && self.target.starts_with("/api/0/organizations/")
            && self.fields.iter().any(|(name, _)| name == "Authorization")
            && fields["content-type"] == ["application/json"]
            && matches!(status, 200 | 404)
    }
}

/// Where the answer to a client comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Upstream,
    Store,
}

/// Whether region URLs in bodies are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegionUrls {
    Rewritten,
    Kept,
}

/// Makes of what was recorded what a client of `proxy` must get: all that the proxy changes, and nothing else.
///
/// Fields whose value depends on the moment are taken from what it `got`, if they must be there, and are judged by
/// [`assert_own_fields`].
fn expected(
    recording: &Recording,
    (from, region_urls): (From, RegionUrls),
    proxy: SocketAddr,
    got: &Message,
) -> Message {
    let mut message = recording.recorded();
    let base = format!("http://{proxy}");
    // Pagination leads back here.
    for link in message.fields.get_mut("link").into_iter().flatten() {
        *link = link.replace(&format!("<{SENTRY}/"), &format!("<{base}/"));
    }
    // So do regions, in the answers that say where an organization lives.
    if region_urls == RegionUrls::Rewritten && recording.names_regions() && message.status == 200 {
        let url = |base: &str| format!("\"regionUrl\":\"{base}\"");
        message.body = message.body.replace(&url(SENTRY), &url(&base));
        message.fields.insert("content-length".to_owned(), vec![message.body.len().to_string()]);
    }
    // Limits are never replayed from the store.
    if from == From::Store {
        message.fields.retain(|name, _| !name.starts_with(LIMITS));
    }
    // Every answer says how it came about, when, and what its request is called. What is stored can be asked for again by its validator.
    let mut own = vec!["cache-status", "date", "x-request-id"];
    if recording.is_storable() {
        own.push("cache-control");
        own.extend((message.status == 200).then_some("etag"));
        own.extend((from == From::Store).then_some("age"));
    }
    for name in own {
        message.fields.insert(name.to_owned(), got.fields.get(name).cloned().unwrap_or_default());
    }
    message
}

/// Judges the fields that the proxy adds.
fn assert_own_fields(recording: &Recording, from: From, got: &Message) {
    let one = |name: &str| match got.fields.get(name).map(Vec::as_slice) {
        Some([value]) => value.clone(),
        other => panic!("{}: {name} is {other:?}", recording.name),
    };
    httpdate::parse_http_date(&one("date")).unwrap();
    assert_eq!(one("x-request-id").len(), 16);
    let status = one("cache-status");
    let begin = match from {
        From::Store => "sentrybox; hit; ttl=",
        From::Upstream => "sentrybox; fwd=",
    };
    assert!(status.starts_with(begin), "{}: {status}", recording.name);
    assert_eq!(status.contains("; stored"), from == From::Upstream && recording.is_storable(), "{status}");
    if recording.is_storable() {
        assert_eq!(one("cache-control"), "private, no-cache");
        let is_tagged = got.fields.get("etag").is_some_and(|tag| tag[0].starts_with('"'));
        assert_eq!(is_tagged, got.status == 200, "{}", recording.name);
        assert!(from == From::Upstream || one("age").parse::<u64>().unwrap() < 60);
    }
}

/// An upstream that answers with recorded bytes, and notes what it was asked.
struct Replay {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Replay {
    async fn start(recordings: &[Recording]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (recordings, notes) = (recordings.to_vec(), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(replay(stream, recordings.clone(), Arc::clone(&notes)));
            }
        });
        Self { address, asked }
    }

    /// Returns what was asked since this was called last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers the requests of one connection.
async fn replay(stream: TcpStream, recordings: Vec<Recording>, asked: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let length = field("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let credential = field("authorization").unwrap_or_default();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
        let asked_now = summary(line, credential, std::str::from_utf8(&body).unwrap());
        let is_it = |recording: &&Recording| recording.summary() == asked_now;
        let answer = recordings.iter().find(is_it).map(|recording| recording.answer.clone());
        asked.lock().unwrap().push(asked_now);
        let Some(answer) = answer else { return };
        stream.write_all(&answer).await.unwrap();
    }
}

/// What tells the recorded requests apart, as one text.
fn summary(line: &str, credential: &str, body: &str) -> String {
    format!("{line} as {credential:?} with {body:?}")
}

impl Recording {
    fn summary(&self) -> String {
        let credential = self.fields.iter().find(|(name, _)| name == "Authorization");
        let credential = credential.map_or("", |(_, value)| value);
        summary(&format!("{} {}", self.method, self.target), credential, &self.body)
    }
}

/// Returns every recording in the order of their names; empty where there are none.
fn recordings() -> Vec<Recording> {
    let Ok(folder) = fs::read_dir(FOLDER) else {
        // Past the capture of tests' output.
        let _ = writeln!(stderr(), "no recordings in {FOLDER}: nothing is replayed");
        return Vec::new();
    };
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "request"));
    paths.sort();
    assert!(!paths.is_empty(), "a folder of recordings without any");
    paths.iter().map(|path| Recording::read(path)).collect()
}

fn message(answer: &Answer) -> Message {
    let mut fields = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &answer.fields {
        fields.entry(name.as_str().to_owned()).or_default().push(value.to_str().unwrap().to_owned());
    }
    Message { status: answer.status.as_u16(), fields, body: answer.text().to_owned() }
}

/// Replays everything: each answer as it is forwarded and, where it may be stored, as it is reused.
async fn check(region_urls: RegionUrls) {
    let recordings = recordings();
    let upstream = Replay::start(&recordings).await;
    let mut command = sentrybox();
    command.args(["--upstream", &format!("http://{}", upstream.address)]);
    // Each recording is asked for itself.
    command.env("SENTRYBOX_CACHE__REJECTION_MEMORY", "0s");
    command.env("SENTRYBOX_REWRITE__REGION_URLS", (region_urls == RegionUrls::Rewritten).to_string());
    command.env("SENTRYBOX_CACHE__NEGATIVE_FRESH_FOR", "1m");
    let proxy = Binary::start(command);
    for recording in &recordings {
        let rounds: &[From] =
            if recording.is_storable() { &[From::Upstream, From::Store] } else { &[From::Upstream; 2] };
        for from in rounds {
            let got = message(&send(proxy.address, recording.request()).await.unwrap());
            let expected = expected(recording, (*from, region_urls), proxy.address, &got);
            assert_eq!(got, expected, "{} from {from:?}", recording.name);
            assert_own_fields(recording, *from, &got);
            let asked = if *from == From::Store { vec![] } else { vec![recording.summary()] };
            assert_eq!(upstream.asked(), asked, "{} from {from:?}", recording.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_answer_comes_through_as_it_is_but_for_what_leads_back_here() {
    check(RegionUrls::Rewritten).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_body_comes_through_to_the_byte_when_region_urls_are_kept() {
    check(RegionUrls::Kept).await;
}
