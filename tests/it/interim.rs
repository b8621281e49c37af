//! Interim responses: passed on to the HTTP/1.1 client for whom upstream was asked, ahead of its answer, never stored.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::Request;
use hyper::body::Incoming;
use sentrybox::config::load::defaults;
use sentrybox::metrics::{LabelValues, Metrics};
use sentrybox::peer::Peer;
use sentrybox::server::{Server, ServerSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::support::corridor::{ALICE, House, PROJECTS};
use crate::support::scripted::Act;

const HINT: &str = "<https://sentry.io/api/0/a/>; rel=preload";

/// Connects a client to the house by a connection of its own.
fn connect(house: &House) -> DuplexStream {
    let config = defaults();
    let settings = ServerSettings::for_clients(&config.listen, config.shutdown);
    let server = Server::new(settings, Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default())));
    let proxy = house.proxy.clone();
    let handler = move |request: Request<Incoming>, peer: Peer| {
        let proxy = proxy.clone();
        async move { proxy.serve(request, peer).await }
    };
    let (near, far) = duplex(64 * 1024);
    let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 7)));
    tokio::spawn(async move { server.serve_connection(near, peer, handler).await });
    far
}

/// Sends requests for these targets in one go and returns all that comes back.
async fn converse(house: &House, version: &str, targets: &[&str]) -> String {
    let mut stream = connect(house);
    for target in targets {
        let head = format!("GET {target} {version}\r\nHost: box.example\r\nAuthorization: {ALICE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn hinting() -> Act {
    Act::json("[1]").hinting(102, &[]).hinting(
        103,
        &[
            ("link", HINT),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("x-sentry-rate-limit-limit", "40"),
        ],
    )
}

const EXPECTED: &str = "HTTP/1.1 102 Processing\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nlink: <http://box.example/api/0/a/>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n";

#[tokio::test(start_paused = true)]
async fn rfc9110_15_2_interim_responses_are_passed_on_made_ours_and_not_stored() {
    let house = House::new();
    house.upstream.plays(PROJECTS, hinting().after(Duration::from_secs(1)));
    let first = converse(&house, "HTTP/1.1", &[PROJECTS]).await;
    assert!(first.starts_with(EXPECTED), "{first}");
    let second = converse(&house, "HTTP/1.1", &[PROJECTS]).await;
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n") && second.contains("; hit"), "{second}");
}

#[tokio::test(start_paused = true)]
async fn interim_responses_of_a_forward_that_is_passed_through_are_passed_on_too() {
    let house = House::new();
    house.upstream.plays("/api/0/projects/acme/web/", hinting());
    let text = converse(&house, "HTTP/1.1", &["/api/0/projects/acme/web/"]).await;
    assert!(text.starts_with(EXPECTED), "{text}");
}

#[tokio::test(start_paused = true)]
async fn rfc9110_15_2_a_client_of_http_1_0_gets_none() {
    let house = House::new();
    house.upstream.plays(PROJECTS, hinting());
    let text = converse(&house, "HTTP/1.0", &[PROJECTS]).await;
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn interim_responses_keep_their_place_among_pipelined_requests() {
    let house = House::new();
    house.upstream.plays(PROJECTS, hinting().after(Duration::from_secs(1)));
    let teams = "/api/0/organizations/acme/teams/";
    house.upstream.plays(teams, Act::json("[2]"));
    let text = converse(&house, "HTTP/1.1", &[teams, PROJECTS, teams]).await;
    let heads: Vec<_> = text.lines().filter(|line| line.contains("HTTP/1.1 ")).collect();
    let places: Vec<_> = heads.iter().filter_map(|line| line.split("HTTP/1.1 ").nth(1)).collect();
    assert_eq!(places, ["200 OK", "102 Processing", "103 Early Hints", "200 OK", "200 OK"], "{text}");
}
