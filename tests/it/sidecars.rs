//! Two proxies in a row: one beside a service, before one that is shared; and proxies that lead back to themselves.
//!
//! Both are the built binary; Sentry is the sandbox, or a bare socket where its answers matter. Clients ask the one beside them.
//! Not here: what one proxy does (the other modules).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use sentrybox::sandbox::{Sandbox, SandboxOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::binary::{Binary, sentrybox};
use crate::support::http::{Answer, Fields, get, put, request, send};
use crate::support::raw::{RawUpstream, Step, answer};

const LIST: &str = "/api/0/organizations/";
const DETAIL: &str = "/api/0/organizations/org-002/";
const OTHER: Fields<'static> = &[("authorization", "Bearer sntryu_demo_other")];
const OWNER: Fields<'static> = &[("authorization", "Bearer sntryu_demo_owner")];

/// Starts a proxy before an origin.
fn proxy(origin: &str, environment: &[(&str, &str)]) -> Binary {
    let mut command = sentrybox();
    command.args(["--upstream", origin]).envs(environment.iter().copied());
    Binary::start(command)
}

fn origin(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Returns what each of the two caches says, the shared one first.
fn statuses(answer: &Answer) -> Vec<String> {
    let lines = answer.fields.get_all("cache-status").iter();
    lines.flat_map(|line| line.to_str().unwrap().split(", ")).map(str::to_owned).collect()
}

/// Returns the members of `Via` without what tells instances apart.
fn names(via: &str) -> Vec<&str> {
    via.split(", ").map(|member| member.split(" (").next().unwrap()).collect()
}

/// Two proxies before a sandbox.
struct Chain {
    sandbox: Sandbox,
    shared: Binary,
    sidecar: Binary,
}

impl Chain {
    async fn set(options: SandboxOptions, shared: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let shared = proxy(&sandbox.origin(), shared);
        let sidecar = proxy(&origin(shared.address), &[]);
        Self { sandbox, shared, sidecar }
    }

    async fn get(&self, target: &str) -> Answer {
        get(self.sidecar.address, target, OWNER).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_region_urls_lead_back_to_the_nearest_proxy_page_after_page() {
    let chain = Chain::set(SandboxOptions::unhindered(), &[]).await;
    let base = origin(chain.sidecar.address);
    let mut target = LIST.to_owned();
    let mut pages = 0;
    loop {
        let page = chain.get(&target).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let link = page.field("link");
        assert_eq!(link.matches(&format!("<{base}/api/0/")).count(), 2, "{link}");
        assert!(!link.contains("sentry.io") && !link.contains(&chain.shared.address.to_string()), "{link}");
        assert!(
            !page.text().contains(&chain.shared.address.to_string()),
            "a region URL leads to the shared one"
        );
        assert!(page.text().contains(&format!("\"regionUrl\":\"{base}\"")));
        pages += 1;
        let next = link.split(", <").find(|link| link.contains("rel=\"next\"")).unwrap();
        if !next.contains("results=\"true\"") {
            break;
        }
        let url = next.split('>').next().unwrap().trim_start_matches('<');
        url.strip_prefix(&base).unwrap().clone_into(&mut target);
    }
    assert!(pages > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_validates_what_the_shared_one_answers_and_sentry_is_asked_once() {
    let chain = Chain::set(SandboxOptions::unhindered(), &[]).await;
    let first = chain.get(LIST).await;
    let [shared, sidecar] = &statuses(&first)[..] else { panic!("{first:?}") };
    assert!(shared.starts_with("sentrybox; fwd=uri-miss; fwd-status=200; stored"), "{shared}");
    assert!(sidecar.starts_with("sentrybox; fwd=uri-miss; fwd-status=200; stored"), "{sidecar}");
    // The shared one says "private, no-cache": whoever comes back gets a 304 from its store.
    let second = chain.get(LIST).await;
    let [shared, sidecar] = &statuses(&second)[..] else { panic!("{second:?}") };
    assert!(shared.starts_with("sentrybox; hit"), "{shared}");
    assert!(sidecar.contains("fwd-status=304"), "{sidecar}");
    assert_eq!((second.field("etag"), &second.body), (first.field("etag"), &first.body));
    assert_eq!(chain.sandbox.requests_total(), 1);
    // The client's own condition is answered, too.
    let known = [OWNER[0], ("if-none-match", second.field("etag"))];
    let third = get(chain.sidecar.address, LIST, &known).await;
    assert_eq!((third.status, third.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(chain.sandbox.requests_total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_reuses_for_as_long_as_the_shared_one_says() {
    let chain =
        Chain::set(SandboxOptions::unhindered(), &[("SENTRYBOX_CACHE__DOWNSTREAM", "lifetime")]).await;
    let first = chain.get(LIST).await;
    let second = chain.get(LIST).await;
    let [shared, sidecar] = &statuses(&second)[..] else { panic!("{second:?}") };
    assert!(shared.contains("fwd=uri-miss"), "as it was told then: {shared}");
    assert!(sidecar.starts_with("sentrybox; hit; ttl="), "{sidecar}");
    assert_eq!(second.body, first.body);
    // A second service has a sidecar of its own, and gets what the shared one has.
    let other = proxy(&origin(chain.shared.address), &[]);
    let third = get(other.address, LIST, OWNER).await;
    let [shared, sidecar] = &statuses(&third)[..] else { panic!("{third:?}") };
    assert!(shared.starts_with("sentrybox; hit; ttl="), "{shared}");
    assert!(sidecar.starts_with("sentrybox; fwd=uri-miss; fwd-status=200; stored"), "{sidecar}");
    assert_eq!(chain.sandbox.requests_total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_age_is_that_of_sentrys_answer_behind_both() {
    let upstream = RawUpstream::start(|_| {
        vec![Step::Read, Step::Write(answer("Cache-Control: private, max-age=600\r\nAge: 100\r\n", "[1]"))]
    })
    .await;
    let shared = proxy(&origin(upstream.address), &[]);
    let sidecar = proxy(&origin(shared.address), &[]);
    for _ in 0..3 {
        let answer = get(sidecar.address, LIST, OWNER).await;
        let age: u64 = answer.field("age").parse().unwrap();
        assert!((100..160).contains(&age), "{answer:?}");
        assert_eq!(answer.field("cache-control"), "private, max-age=600");
    }
    let other = proxy(&origin(shared.address), &[]);
    let age: u64 = get(other.address, LIST, OWNER).await.field("age").parse().unwrap();
    assert!((100..160).contains(&age));
    assert_eq!(upstream.count(LIST), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_either_is_seen_through_both() {
    let chain = Chain::set(SandboxOptions::unhindered(), &[]).await;
    for (through, name) in [(&chain.sidecar, "Renamed once"), (&chain.shared, "Renamed twice")] {
        for target in [LIST, DETAIL] {
            assert!(!get(chain.sidecar.address, target, OTHER).await.text().contains(name));
        }
        let body =
            if name == "Renamed once" { r#"{"name":"Renamed once"}"# } else { r#"{"name":"Renamed twice"}"# };
        let written = put(through.address, DETAIL, OWNER, body).await;
        assert_eq!(written.status, StatusCode::OK, "{written:?}");
        for target in [LIST, DETAIL] {
            for reader in [&chain.sidecar, &chain.shared] {
                assert!(get(reader.address, target, OTHER).await.text().contains(name), "{name} {target}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_sentrys_limit_is_told_through_both_and_no_more_is_sent() {
    let chain = Chain::set(SandboxOptions::default(), &[]).await;
    let answer = chain.get(LIST).await;
    assert_eq!(answer.field("x-sentry-rate-limit-limit"), "40", "{answer:?}");
    assert_eq!(answer.field("x-sentry-rate-limit-remaining"), "39");
    assert_eq!(answer.field("x-sentry-rate-limit-concurrentlimit"), "25");
    // Far more than a second allows, each another request: all are answered, and Sentry refuses none.
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..60 {
        let address = chain.sidecar.address;
        crowd.spawn(async move { get(address, &format!("{LIST}?query={number}"), OWNER).await.status });
    }
    let answered = crowd.join_all().await;
    assert!(answered.iter().all(|status| *status == StatusCode::OK), "{answered:?}");
    assert_eq!(chain.sandbox.requests_total(), 61, "one request each, none refused and asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentry_sees_both_in_via_and_one_name_for_the_request() {
    let upstream = RawUpstream::start(|_| vec![Step::Read, Step::Write(answer("", "[1]"))]).await;
    let shared = proxy(&origin(upstream.address), &[]);
    let sidecar = proxy(&origin(shared.address), &[]);
    let fields = [OWNER[0], ("x-request-id", "mine"), ("via", "1.1 service"), ("x-forwarded-for", "1.2.3.4")];
    assert_eq!(get(sidecar.address, "/api/0/issues/1/", &fields).await.field("x-request-id"), "mine");
    let arrived = String::from_utf8(upstream.take()).unwrap();
    let lines: Vec<_> = arrived.split("\r\n").filter_map(|line| line.strip_prefix("via: ")).collect();
    assert_eq!(names(&lines.join(", ")), ["1.1 service", "1.1 sentrybox", "1.1 sentrybox"]);
    assert!(arrived.contains("x-request-id: mine\r\n") && !arrived.contains("1.2.3.4"), "{arrived}");
    assert!(arrived.contains(&format!("host: {}\r\n", upstream.address)), "{arrived}");
}

/// Passes connections on to an address that is told later.
struct Relay {
    address: SocketAddr,
    onwards: Arc<OnceLock<SocketAddr>>,
    passing: JoinHandle<()>,
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let onwards = Arc::new(OnceLock::<SocketAddr>::new());
        let passing = tokio::spawn({
            let onwards = Arc::clone(&onwards);
            async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let to = *onwards.get().unwrap();
                    tokio::spawn(async move {
                        let mut far = TcpStream::connect(to).await.unwrap();
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            }
        });
        Self { address, onwards, passing }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

/// Fails unless a request of any kind is told that it goes in circles.
async fn check_loop(address: SocketAddr) {
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
        for target in [LIST, "/api/0/issues/1/"] {
            let fields = [OWNER[0], ("via", "1.1 service (with, commas), 1.0 edge")];
            let answer = send(address, request(method.clone(), target, &fields, "")).await.unwrap();
            assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{method} {target}: {answer:?}");
            assert!(answer.field("cache-status").contains("detail=loop"), "{answer:?}");
            if method != Method::HEAD {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(body["detail"], "The request came back to this proxy: its upstream leads here.");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_before_itself_says_so() {
    let relay = Relay::start().await;
    let proxy = proxy(&origin(relay.address), &[]);
    relay.onwards.set(proxy.address).unwrap();
    check_loop(proxy.address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_proxies_before_each_other_say_so() {
    let relay = Relay::start().await;
    let first = proxy(&origin(relay.address), &[]);
    let second = proxy(&origin(first.address), &[]);
    relay.onwards.set(second.address).unwrap();
    for entry in [&first, &second] {
        check_loop(entry.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_names_us_twice_is_told_of_a_loop() {
    let upstream = RawUpstream::start(|_| vec![Step::Read, Step::Write(answer("", "[1]"))]).await;
    let proxy = proxy(&origin(upstream.address), &[]);
    let ask = async |via: &[&str]| {
        let fields: Vec<_> = via.iter().map(|via| ("via", *via)).chain([OWNER[0]]).collect();
        get(proxy.address, "/api/0/issues/1/", &fields).await.status
    };
    for via in [
        &["1.1 sentrybox (another)"][..],
        &["1.1 a (sentrybox), 1.1 b (1.1 sentrybox (x), 1.1 sentrybox (y))"],
        &["sentrybox, sentrybox, sentrybox"],
        &["1.1 sentrybox.example, 1.1 sentrybox:9000, 1.1 my-sentrybox"],
        &["1.1 a", "1.1 sentrybox (x)", "1.1 b (\")\")"],
        &["", ",,,", "((((", "))))", "\\\\\\\\"],
    ] {
        assert_eq!(ask(via).await, StatusCode::OK, "{via:?}");
    }
    for via in [
        &["1.1 sentrybox (x), 1.1 sentrybox (y)"][..],
        &["1.1 sentrybox (x)", "HTTP/1.1 SENTRYBOX"],
        &["1.1 a (never ends, 1.1 sentrybox, 1.1 sentrybox"],
    ] {
        assert_eq!(ask(via).await, StatusCode::LOOP_DETECTED, "{via:?}");
    }
}
