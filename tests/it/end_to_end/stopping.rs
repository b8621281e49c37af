//! SIGTERM: what was accepted is answered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use sentrybox::sandbox::faults::{Fault, FaultRule};
use tokio::task::JoinSet;

use crate::end_to_end::serving::{connect_http2, get_http2, whole};
use crate::end_to_end::{LIST, OWNER, PATIENCE, Stage, assert_refused, until};
use crate::support::http::{Answer, get, request, send};

/// Clients that keep their connection, and clients whose connection the proxy may not have accepted yet.
const CLIENTS: usize = 40;

/// Every third request takes this long.
const SLOW: Duration = Duration::from_millis(700);

/// Writes one request and returns the connection, with nothing read from it.
fn write_one(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write_to(&mut stream, target).unwrap();
    stream
}

fn write_to(stream: &mut TcpStream, target: &str) -> io::Result<()> {
    let (name, value) = OWNER[0];
    let request = format!("GET {target} HTTP/1.1\r\nHost: proxy.example\r\n{name}: {value}\r\n\r\n");
    stream.write_all(request.as_bytes())
}

/// Reads one whole answer; `Err` holds what there was of it when the connection ended.
fn read_one(stream: &mut TcpStream) -> Result<String, String> {
    let mut read = Vec::new();
    let mut byte = [0];
    let text = |read: &[u8]| String::from_utf8_lossy(read).into_owned();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => read.push(byte[0]),
            _ => return Err(text(&read)),
        }
    }
    let head = text(&read).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).map_err(|_| head)?;
    Ok(text(&[read, body].concat()))
}

/// Returns a target of a client's own: every third one is slow, every third one the same for all.
fn target(client: usize, number: usize) -> String {
    match number % 3 {
        0 => format!("{LIST}org-001/projects/?slow={client}-{number}"),
        1 => format!("{LIST}?query={client}-{number}"),
        _ => LIST.to_owned(),
    }
}

/// Asks again and again on one connection; every request from before the signal must be answered.
///
/// Every other client does not know of the signal and goes on: on a connection that it was not told to leave, it may
/// find nobody any more, but never half an answer.
fn go_on_asking(address: SocketAddr, client: usize, signalled: &AtomicBool, answered: &AtomicUsize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in client.. {
        let is_late = signalled.load(Ordering::SeqCst);
        if is_late && client.is_multiple_of(2) {
            return;
        }
        let written = write_to(&mut stream, &target(client, number));
        let answer = match written.map_err(|_| String::new()).and_then(|()| read_one(&mut stream)) {
            Ok(answer) => answer,
            Err(partial) => return assert!(is_late && partial.is_empty(), "{is_late} {partial}"),
        };
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answered.fetch_add(1, Ordering::SeqCst);
        // Whoever is told that the connection ends does not ask on it.
        if answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_was_accepted_is_answered() {
    let mut stage = Stage::set(&[]).await;
    let slow = format!("{LIST}org-001/projects/");
    stage.sandbox.faults().add(FaultRule::always(&slow, Fault::SlowAnswer(SLOW)));
    let (address, signalled, answered) =
        (stage.binary.address, Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (signalled, answered) = (Arc::clone(&signalled), Arc::clone(&answered));
        clients.spawn_blocking(move || go_on_asking(address, client, &signalled, &answered));
    }
    let mut http2 = connect_http2(&stage).await;
    for stream in 0..20 {
        let answer = whole(http2.send_request(get_http2(&stage, &target(1_000, stream))));
        clients.spawn(async move { assert_eq!(answer.await.0.status, StatusCode::OK) });
    }
    until(async || answered.load(Ordering::SeqCst) > CLIENTS * 5).await;

    // Written, whether the proxy has accepted the connection by now or not.
    let waiting: Vec<_> = (0..CLIENTS).map(|client| write_one(address, &target(2_000, client))).collect();
    signalled.store(true, Ordering::SeqCst);
    stage.binary.terminate();
    for mut stream in waiting {
        clients.spawn_blocking(move || {
            let answer = read_one(&mut stream).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    stage.end("");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// Waits for the answer of a request that was sent in a task.
async fn landed(task: tokio::task::JoinHandle<Answer>) -> Answer {
    task.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_at_the_deadline_is_answered_with_503() {
    let mut stage = Stage::set(&[("SENTRYBOX_SHUTDOWN__GRACE", "300ms")]).await;
    stage.sandbox.faults().add(FaultRule::always(LIST, Fault::Hang));
    let address = stage.binary.address;
    let read = tokio::spawn(async move { get(address, LIST, OWNER).await });
    let write = request(Method::PUT, "/api/0/organizations/org-002/", OWNER, "{}");
    let write = tokio::spawn(async move { send(address, write).await.unwrap() });
    until(async || stage.sandbox.journal().in_flight() == 2).await;
    stage.binary.terminate();
    for answer in [landed(read).await, landed(write).await] {
        assert_refused(&answer, 503);
        assert_eq!(answer.field("cache-status"), "sentrybox; detail=shutting-down");
    }
    stage.end("");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_with_the_signal_and_not_with_the_process() {
    let mut stage = Stage::set(&[]).await;
    stage.sandbox.faults().add(FaultRule::once(LIST, Fault::SlowAnswer(Duration::from_secs(1))));
    let address = stage.binary.address;
    let slow = tokio::spawn(async move { get(address, LIST, OWNER).await });
    until(async || stage.sandbox.requests_to(LIST) == 1).await;
    stage.binary.terminate();
    until(async || {
        let ready = stage.ask(Method::GET, "/readyz").await;
        ready.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(stage.ask(Method::GET, "/livez").await.status, StatusCode::OK);
    assert_eq!(landed(slow).await.status, StatusCode::OK);
    stage.end("");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let mut stage = Stage::set(&[]).await;
    let mut idle: Vec<_> = (0..CLIENTS).map(|_| write_one(stage.binary.address, LIST)).collect();
    for stream in &mut idle {
        assert!(tokio::task::block_in_place(|| read_one(stream)).is_ok());
    }
    let silent = TcpStream::connect(stage.binary.address).unwrap();
    stage.binary.terminate();
    stage.end("");
    drop((idle, silent));
}
