//! An upstream and a client that are nothing but bytes: what nobody who speaks HTTP properly would send.
//!
//! The upstream notes every byte that reaches it, and plays for each request what its script says, to the letter. The client
//! sends what it is given, says that it has nothing more to say, and returns whatever comes back.
//!
//! Invariant: nobody waits longer than [`LIMIT`]. Deliberately not here: any understanding of HTTP beyond where a plain request
//! ends, which is all that the proxy may send.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Longest that one conversation may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// What upstream does next with a connection on which a request's head has come.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads the request's body to its end.
    Read,
    /// Writes this.
    Write(Vec<u8>),
    /// Writes this so many times, or until nobody takes it.
    Flood(Vec<u8>, u64),
    /// Writes these bytes one by one, each after a pause, and again from the start when they are through.
    Drip(Vec<u8>, Duration),
    /// Says nothing for so long.
    Pause(Duration),
    /// Says nothing until the other side ends the connection.
    Hang,
    /// Ends the connection as one ends a conversation.
    Close,
    /// Ends the connection as one drops a telephone.
    Reset,
}

/// A request's head, as it reached upstream.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: String,
}

impl Asked {
    /// Returns the method and the target.
    pub(crate) fn line(&self) -> &str {
        let line = self.head.split("\r\n").next().unwrap();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line)
    }

    /// Returns the target.
    pub(crate) fn target(&self) -> &str {
        self.line().split_once(' ').unwrap().1
    }

    /// Returns the value of a field; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }
}

/// Decides what is done with a request.
type Script = Arc<dyn Fn(&Asked) -> Vec<Step> + Send + Sync>;

#[derive(Debug, Default)]
struct Journal {
    /// What came since it was last taken.
    received: Vec<u8>,
    heads: Vec<Asked>,
    written: u64,
}

/// An upstream on a port of its own; it is gone when it is dropped.
pub(crate) struct RawUpstream {
    pub(crate) address: SocketAddr,
    journal: Arc<Mutex<Journal>>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for RawUpstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RawUpstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl RawUpstream {
    /// Starts one that plays what `script` says.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::dressed(script, async |stream| Some(stream)).await
    }

    /// Starts one that first makes something else of each connection.
    pub(crate) async fn dressed<S, D, F>(
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
        dress: D,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        D: Fn(TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = Option<S>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let journal = Arc::new(Mutex::new(Journal::default()));
        let script: Script = Arc::new(script);
        let accepting = tokio::spawn({
            let journal = Arc::clone(&journal);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let (stream, socket) = twins(stream);
                    let (journal, script, dress) = (Arc::clone(&journal), Arc::clone(&script), dress.clone());
                    tokio::spawn(async move {
                        if let Some(stream) = dress(stream).await {
                            Conversation::new((stream, socket), journal, script).carry_on().await;
                        }
                    });
                }
            }
        });
        Self { address, journal, accepting }
    }

    /// Takes what came since it was last asked, on whichever connection.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.journal).received)
    }

    /// Returns how many heads of requests for a target came.
    pub(crate) fn count(&self, target: &str) -> usize {
        lock(&self.journal).heads.iter().filter(|asked| asked.target() == target).count()
    }

    /// Returns how many bytes it could write in all.
    pub(crate) fn written(&self) -> u64 {
        lock(&self.journal).written
    }
}

/// Returns two handles of one connection.
fn twins(stream: TcpStream) -> (TcpStream, TcpStream) {
    let stream = stream.into_std().unwrap();
    let twin = stream.try_clone().unwrap();
    (TcpStream::from_std(stream).unwrap(), TcpStream::from_std(twin).unwrap())
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct Conversation<S> {
    stream: S,
    /// The connection below, to end it roughly.
    socket: TcpStream,
    journal: Arc<Mutex<Journal>>,
    script: Script,
    /// What came and belongs to no request yet.
    waiting: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    fn new((stream, socket): (S, TcpStream), journal: Arc<Mutex<Journal>>, script: Script) -> Self {
        Self { stream, socket, journal, script, waiting: Vec::new() }
    }

    /// Answers request after request, until either side has enough.
    async fn carry_on(mut self) {
        while let Some(head) = self.head().await {
            let asked = Asked { head };
            lock(&self.journal).heads.push(asked.clone());
            for step in (self.script)(&asked) {
                if self.play(&asked, step).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Plays a step; `None` when the conversation is over.
    async fn play(&mut self, asked: &Asked, step: Step) -> Option<()> {
        match step {
            Step::Read => self.body(asked).await,
            Step::Write(bytes) => self.write(&bytes).await,
            Step::Flood(bytes, times) => {
                for _ in 0..times {
                    self.write(&bytes).await?;
                }
                Some(())
            }
            Step::Drip(bytes, pause) => loop {
                for byte in &bytes {
                    self.write(&[*byte]).await?;
                    sleep(pause).await;
                }
            },
            Step::Pause(pause) => {
                sleep(pause).await;
                Some(())
            }
            Step::Hang => {
                while self.read().await.is_some() {}
                None
            }
            Step::Close => {
                let _ = self.stream.shutdown().await;
                None
            }
            Step::Reset => {
                self.socket.set_zero_linger().unwrap();
                None
            }
        }
    }

    /// Reads the next head, the empty line included; `None` at the end.
    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = position(&self.waiting, b"\r\n\r\n") {
                let head = self.waiting.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap_or_default());
            }
            self.read().await?;
        }
    }

    /// Reads the body that a head announces.
    async fn body(&mut self, asked: &Asked) -> Option<()> {
        let end = if asked.field("transfer-encoding") == "chunked" {
            // Nothing comes behind a request until it is answered.
            while !self.waiting.ends_with(b"0\r\n\r\n") {
                self.read().await?;
            }
            self.waiting.len()
        } else {
            asked.field("content-length").parse().unwrap_or(0)
        };
        while self.waiting.len() < end {
            self.read().await?;
        }
        self.waiting.drain(Range { start: 0, end });
        Some(())
    }

    async fn read(&mut self) -> Option<()> {
        let before = self.waiting.len();
        self.waiting.reserve(16 * 1024);
        self.stream.read_buf(&mut self.waiting).await.ok().filter(|count| *count > 0)?;
        lock(&self.journal).received.extend_from_slice(&self.waiting[before..]);
        Some(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()?;
        lock(&self.journal).written += bytes.len() as u64;
        Some(())
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Returns an answer that is as it should be, with a JSON body.
pub(crate) fn json(body: &str) -> Vec<u8> {
    answer("", body)
}

/// Returns such an answer with further fields, each with its line's end.
pub(crate) fn answer(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends bytes on a connection of their own, and returns all that comes back until the other side ends it; nothing where that is
/// not within [`LIMIT`].
pub(crate) async fn converse(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let conversation = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Whoever was refused early may not want to hear the rest.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    timeout(LIMIT, conversation).await.unwrap_or_default()
}

/// A final answer, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// Its fields, one a line, in small letters up to the colon.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether its framing says that this is all of it.
    pub(crate) is_whole: bool,
}

impl Got {
    /// Reads the final answer in what came back, behind any interim ones; `None` where there is none.
    pub(crate) fn read(answer: &[u8]) -> Option<Self> {
        let end = position(answer, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let rest = &answer[end + 4..];
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        if status < 200 {
            return Self::read(rest);
        }
        let (body, is_whole) = match (field(&head, "content-length"), field(&head, "transfer-encoding")) {
            (Some(length), None) => (rest.to_vec(), length.parse() == Ok(rest.len())),
            (None, Some("chunked")) => dechunked(rest),
            (None, None) => (rest.to_vec(), rest.is_empty()),
            framing => panic!("an answer of ours with {framing:?}"),
        };
        Some(Self { status, head, body, is_whole })
    }

    /// Returns the value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Returns the value of a field; fails where there are several.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values =
        head.split("\r\n").filter_map(|line| line.split_once(": ")).filter(|(found, _)| *found == name);
    let value = values.next().map(|(_, value)| value);
    assert_eq!(values.next(), None, "{name} twice in {head}");
    value
}

/// Returns what is in chunks, and whether the last one was there.
pub(crate) fn dechunked(mut chunks: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = position(chunks, b"\r\n") else { return (body, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        chunks = &chunks[end + 2..];
        if size == 0 {
            return (body, chunks == b"\r\n");
        }
        let Some((data, rest)) = chunks.split_at_checked(size + 2) else { return (body, false) };
        body.extend_from_slice(&data[..size]);
        chunks = rest;
    }
}

/// Returns the statuses of the HTTP/1.1 answers in what came back, interim ones included.
pub(crate) fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines =
        ["HTTP/1.1 ", "HTTP/1.0 "].map(|version| text.match_indices(version).collect::<Vec<_>>()).concat();
    let mut found: Vec<_> =
        lines.iter().map(|(place, _)| (*place, text[place + 9..place + 12].parse().unwrap())).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, status)| status).collect()
}
