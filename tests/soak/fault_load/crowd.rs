//! Crowds: connections that idle, and clients that send a byte now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::ask::{WATCHED, unique};
use crate::authority::NAME;
use crate::judge::Judge;
use crate::told;
use crate::wire::{Door, Doors, Protocol, Stream};

/// How many connect at the same time.
const HANDS: usize = 50;

/// Longest that one may take to be served.
const SERVICE: Duration = Duration::from_secs(10);

/// How often whoever dribbles sends a byte.
const DRIP: Duration = Duration::from_secs(1);

/// How many of a hundred that dribble do so in a body, for which upstream waits.
const IN_A_BODY: usize = 4;

/// Connections that are open.
pub(crate) struct Crowd {
    streams: Vec<Box<dyn Stream>>,
}

impl Crowd {
    /// Connects; each is `served` once first, or says nothing.
    pub(crate) async fn gather(doors: &Arc<Doors>, door: Door, (count, kind): (usize, Kind)) -> Self {
        let mut hands = JoinSet::new();
        for _ in 0..HANDS {
            let doors = Arc::clone(doors);
            hands.spawn(async move {
                let mut streams = Vec::new();
                for _ in 0..count / HANDS {
                    let Ok(mut stream) = doors.connect(door, Protocol::One).await else { continue };
                    if kind == Kind::Silent || serve(&mut stream).await {
                        streams.push(stream);
                    }
                }
                streams
            });
        }
        Self { streams: hands.join_all().await.into_iter().flatten().collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Has every hundredth connection be served once more; whoever is not is an error.
    pub(crate) async fn check(&mut self, judge: &Judge) {
        for stream in self.streams.iter_mut().step_by(100) {
            if !serve(stream).await {
                judge.error("an idle connection was not served any more");
            }
        }
    }

    /// Sends a byte on every connection again and again, for as long as `lasting`; whoever is cut off is no loss.
    pub(crate) async fn dribble(&mut self, lasting: Duration, judge: &Judge) {
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let _ = stream.write_all(beginning(number).as_bytes()).await;
        }
        let end = judge.now() + lasting;
        let slices = self.streams.len().div_ceil(20).max(1);
        while judge.now() < end {
            for slice in self.streams.chunks_mut(slices) {
                for stream in slice {
                    let _ = stream.write_all(b"1").await;
                }
                sleep(DRIP / 20).await;
            }
        }
    }
}

/// What a crowd has done before it idles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Silent,
    Served,
}

/// Returns what whoever dribbles begins with.
fn beginning(number: usize) -> String {
    let authorization = format!("Authorization: Bearer {}", told::token(number as u64 % told::MARKS));
    if number % 100 < IN_A_BODY {
        let target = "/api/0/organizations/soak/issues/1/";
        let number = unique();
        return format!(
            "PUT {target} HTTP/1.1\r\nHost: {NAME}\r\n{authorization}\r\nContent-Type: application/json\r\n\
             Content-Length: 5000\r\n\r\n{{\"write\":{number},\"slow\":"
        );
    }
    format!("GET {WATCHED}?watcher=0 HTTP/1.1\r\nHost: {NAME}\r\n{authorization}\r\nX-Slow: ")
}

/// Asks for a hit, and returns whether all of it came.
async fn serve(stream: &mut Box<dyn Stream>) -> bool {
    timeout(SERVICE, served(stream)).await.is_ok_and(|served| served.is_some())
}

async fn served(stream: &mut Box<dyn Stream>) -> Option<()> {
    let token = told::token(0);
    let request =
        format!("GET {WATCHED}?watcher=0 HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        answer.extend_from_slice(buffer.get(..length)?);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let told = head.to_ascii_lowercase();
        let length = told.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if length.parse() == Ok(body.len()) {
            return told.starts_with("http/1.1 200 ").then_some(());
        }
    }
}
