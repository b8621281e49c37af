//! Answers from the store, pagination, what a client is told, both protocols.

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::end_to_end::{LIST, OTHER, OWNER, Stage, assert_refused, count, next_page};
use crate::support::http::{Fields, head};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_list_is_a_forward_and_the_second_a_hit_with_age() {
    let stage = Stage::set(&[]).await;
    let first = stage.get(LIST, OWNER).await;
    let status = first.field("cache-status");
    assert!(status.starts_with("sentrybox; fwd=uri-miss; fwd-status=200; stored; ttl="), "{status}");
    assert_eq!((first.field("age"), count(&first)), ("", 100));
    let second = stage.get(LIST, OWNER).await;
    assert!(second.field("cache-status").starts_with("sentrybox; hit; ttl="), "{second:?}");
    assert!(second.field("age").parse::<u64>().unwrap() < 60);
    assert_eq!((second.field("link"), &second.body), (first.field("link"), &first.body));
    assert_eq!(stage.sandbox.requests_total(), 1);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_gets_its_own_answer() {
    let stage = Stage::set(&[]).await;
    let owners = stage.get(LIST, OWNER).await;
    for token in [OTHER, OTHER] {
        let others = stage.get(LIST, token).await;
        assert_eq!((count(&owners), count(&others)), (100, 3));
    }
    assert_eq!(stage.sandbox.requests_to(LIST), 2);
    stage.close().await;
}

/// Follows `next` from the first page, as `host` if one is given, and returns how much there was.
async fn walk(stage: &Stage, host: &str) -> usize {
    let fields: Fields<'_> = &[OWNER[0], ("host", host)];
    let base = format!("http://{host}");
    let mut target = LIST.to_owned();
    let mut seen = 0;
    loop {
        let page = stage.get(&target, fields).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.field("link").matches(&format!("<{base}/api/0/")).count(), 2, "{page:?}");
        assert!(!page.field("link").contains("sentry.io"), "{page:?}");
        let region = format!("\"regionUrl\":\"{base}\"");
        assert_eq!(page.text().matches(&region).count(), count(&page));
        seen += count(&page);
        let Some(next) = next_page(&page) else { return seen };
        next.strip_prefix(&base).unwrap().clone_into(&mut target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_next_reaches_the_last_page_and_never_leaves_the_proxy() {
    let stage = Stage::set(&[]).await;
    let own = stage.binary.address.to_string();
    assert_eq!(walk(&stage, &own).await, 150);
    assert_eq!(stage.sandbox.requests_total(), 2);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_gets_links_on_itself_and_never_the_other_one() {
    let stage = Stage::set(&[]).await;
    let own = stage.binary.address.to_string();
    for host in ["other.example:8080", &own, "other.example:8080", &own] {
        assert_eq!(walk(&stage, host).await, 150);
        let answer = stage.get(LIST, &[OWNER[0], ("host", host)]).await;
        let foreign = if host == own { "other.example" } else { own.as_str() };
        assert!(!format!("{answer:?}").contains(foreign), "{answer:?}");
    }
    assert_eq!(stage.sandbox.requests_total(), 2);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_a_validator_of_its_own() {
    let stage = Stage::set(&[]).await;
    let own = stage.get(LIST, OWNER).await;
    let tag = own.field("etag");
    let other = |tag| vec![OWNER[0], ("host", "other.example:8080"), ("if-none-match", tag)];
    let answer = stage.get(LIST, &other(tag)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = stage.get(LIST, &other(answer.field("etag"))).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let answer = stage.get(LIST, &[OWNER[0], ("if-none-match", tag)]).await;
    assert_eq!((answer.status, answer.field("etag")), (StatusCode::NOT_MODIFIED, tag));
    assert_eq!(answer.field("cache-control"), "private, no-cache");
    assert_eq!(stage.sandbox.requests_total(), 1);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_from_a_stored_get() {
    let stage = Stage::set(&[]).await;
    let whole = stage.get(LIST, OWNER).await;
    let answer = head(stage.binary.address, LIST, OWNER).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(answer.field("content-length"), whole.body.len().to_string());
    assert!(answer.field("cache-status").contains("hit"), "{answer:?}");
    assert_eq!(stage.sandbox.requests_total(), 1);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_pass_through_or_are_told_what_this_is() {
    let stage = Stage::set(&[]).await;
    for number in 1..3 {
        let answer = stage.get("/api/0/projects/", OWNER).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.field("cache-status").contains("fwd=bypass"), "{answer:?}");
        assert_eq!(stage.sandbox.requests_to("/api/0/projects/"), number);
    }
    for (target, status) in [("/", 404), ("/api/1/", 404), ("/api/0/organizations/../users/", 400)] {
        let answer = stage.get(target, OWNER).await;
        assert_refused(&answer, status);
        assert!(answer.field("cache-status").starts_with("sentrybox; detail="), "{answer:?}");
    }
    assert_eq!(stage.sandbox.requests_total(), 2);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_told_how_it_is_and_can_purge() {
    let stage = Stage::set(&[]).await;
    for target in ["/livez", "/readyz"] {
        assert_eq!(stage.ask(Method::GET, target).await.status, StatusCode::OK, "{target}");
    }
    stage.get(LIST, OWNER).await;
    stage.get(LIST, OWNER).await;
    let metrics = stage.ask(Method::GET, "/metrics").await;
    for line in ["handling=\"forward\",reason=\"uri-miss\"", "handling=\"reuse\""] {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
    let purged = stage.ask(Method::POST, "/purge").await;
    assert_eq!(purged.text(), r#"{"purged":"everything","mode":"soft","responses":1}"#);
    assert!(stage.get(LIST, OWNER).await.field("cache-status").contains("fwd="));
    assert_refused(&stage.ask(Method::GET, "/purge").await, 405);
    assert_refused(&stage.ask(Method::GET, "/organizations").await, 404);
    stage.close().await;
}

/// Opens a connection that speaks HTTP/2 from the first byte.
pub(crate) async fn connect_http2(stage: &Stage) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(stage.binary.address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Makes a GET of the owner's for HTTP/2.
pub(crate) fn get_http2(stage: &Stage, target: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("{}{target}", stage.base()));
    request.header(OWNER[0].0, OWNER[0].1).body(Empty::new()).unwrap()
}

/// Reads the whole answer to a request over HTTP/2. Answers of one connection must be read side by side: what is left
/// unread of one takes from the window of all.
pub(crate) async fn whole(answer: impl Future<Output = hyper::Result<Response<Incoming>>>) -> (Parts, Bytes) {
    let (head, body) = answer.await.unwrap().into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_spoken_to_who_begins_with_it() {
    let stage = Stage::set(&[]).await;
    let mut sender = connect_http2(&stage).await;
    let mut together = JoinSet::new();
    for _ in 0..100 {
        together.spawn(whole(sender.send_request(get_http2(&stage, LIST))));
    }
    while let Some(answer) = together.join_next().await {
        let (head, body) = answer.unwrap();
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_2));
        let link = head.headers["link"].to_str().unwrap();
        assert!(link.contains(&format!("<{}/api/0/organizations/?&cursor=", stage.base())), "{link}");
        assert!(body.starts_with(b"[{") && body.ends_with(b"}]"));
    }
    assert_eq!(stage.sandbox.requests_total(), 1);
    let hit = stage.get(LIST, OWNER).await;
    assert!(hit.field("cache-status").contains("hit"), "both protocols share the store: {hit:?}");
    stage.close().await;
}
