//! Lets Sentry say what has changed: a webhook of its integration platform purges what it is about.
//!
//! The steps, in this order, because each keeps something from the next: the method and the length that is told, the form
//! of the signature, the body (bounded in bytes, time, and how many are read at once), the signature itself, the time,
//! the replays and the rate, and only then what the body says. Whoever does not know the secret comes no further than
//! to the signature, so nothing that is counted or remembered for others is theirs.
//!
//! Invariants: what a webhook is about comes from its signed body alone; a body purges once in ten minutes; every webhook
//! has one outcome, which is its label in the metric and in the log; no log line and no answer holds the secret, the
//! signature, or more of the body than the names of what was purged.
//! Not here: the listener (`server`, or that of `admin`), what a purge does (handed in).

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::Secret;
use crate::metrics::Metrics;
use crate::metrics::closed::ClosedLabel;
use crate::metrics::webhooks::WebhookOutcome;
use crate::routes::tags::Tag;
use crate::webhooks::intake::{BodyDigest, Intake};
use crate::webhooks::refusal::Refusal;
use crate::webhooks::signature::{Signature, Verifier};
use crate::webhooks::subjects::subjects_of;

pub mod bucket;
pub mod intake;
pub mod refusal;
pub mod signature;
pub mod subjects;
pub mod timestamp;

/// Where webhooks are posted to.
pub const PATH: &str = "/webhooks/sentry";

/// Largest body of a webhook, in bytes. Those of issues have some thousands; one with a whole event, some hundred thousand.
const MAX_BODY: usize = 1024 * 1024;

/// How long a webhook's body may take: Sentry itself waits for an answer for a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// Most bytes of bodies that are read at a time, by the lengths that are told, as Sentry tells them: their signatures are not
/// known yet, and a slow one must not hold up the others.
const MOST_READ: usize = 32 * MAX_BODY;

/// Most bodies that are read at a time whose length is not told.
const MOST_UNTOLD: usize = 8;

/// Marks what carries certain tags as stale, at once; handed in by whoever owns the store.
#[derive(Clone)]
pub struct Purge(Arc<PurgeFunction>);

type PurgeFunction = dyn Fn(&[Tag]) + Send + Sync;

impl Purge {
    /// Wraps the function that purges.
    pub fn new(purge: impl Fn(&[Tag]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(purge))
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Purge").finish_non_exhaustive()
    }
}

/// Answers webhooks.
#[derive(Debug)]
pub struct Webhooks {
    verifier: Verifier,
    clock: Clock,
    metrics: Arc<Metrics>,
    purge: Purge,
    reading: Semaphore,
    reading_untold: Semaphore,
    intake: Mutex<Intake>,
}

impl Webhooks {
    /// Creates the answerer.
    pub fn new(secret: &Secret, clock: Clock, metrics: Arc<Metrics>, purge: Purge) -> Self {
        Self {
            verifier: Verifier::new(secret),
            clock,
            metrics,
            purge,
            reading: Semaphore::new(MOST_READ),
            reading_untold: Semaphore::new(MOST_UNTOLD),
            intake: Mutex::new(Intake::empty()),
        }
    }

    /// Answers one request of a listener that is for nothing else.
    pub async fn answer_alone<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
    {
        if request.uri().path() == PATH {
            return self.answer(request).await;
        }
        let body = serde_json::json!({ "detail": "There is no such endpoint" }).to_string();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::NOT_FOUND;
        if !request.body().is_end_stream() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        dressed(response)
    }

    /// Answers one request for [`PATH`].
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
    {
        let (head, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        match self.accept(&head, body).await {
            Ok(purged) => {
                self.metrics.webhooks.observe(WebhookOutcome::Accepted);
                let outcome = WebhookOutcome::Accepted.label();
                tracing::info!(outcome, subjects = purged.join(" "), "webhook accepted");
                let body = serde_json::json!({ "purged": purged });
                dressed(Response::new(Full::new(Bytes::from(body.to_string()))))
            }
            Err(refusal) => {
                self.metrics.webhooks.observe(refusal.outcome());
                let (outcome, status) = (refusal.outcome().label(), refusal.status().as_u16());
                tracing::warn!(outcome, status, reason = refusal.detail(), "webhook refused");
                let mut response = dressed(refusal.render());
                // The connection ends with the body unread, and the sender should know.
                if has_body && refusal.leaves_body() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    /// Takes a webhook through every step, and purges what it is about. Returns that in words.
    async fn accept<B>(&self, head: &request::Parts, body: B) -> Result<Vec<String>, Refusal>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
    {
        if head.method != Method::POST {
            return Err(Refusal::WrongMethod);
        }
        let told = body.size_hint();
        if usize::try_from(told.lower()).map_or(true, |length| MAX_BODY < length) {
            return Err(Refusal::TooLarge);
        }
        let signature = Signature::read(&head.headers).ok_or(Refusal::BadSignature)?;
        let read = timeout(BODY_TIMEOUT, self.read(body)).await;
        let body = read.unwrap_or(Err(Refusal::Incomplete))?;
        if !self.verifier.accepts(signature, &body) {
            return Err(Refusal::BadSignature);
        }
        let payload = self.admit(&head.headers, &body)?;
        let tags = subjects_of(&payload);
        (self.purge.0)(&tags);
        Ok(tags.iter().map(Tag::to_string).collect())
    }

    /// Reads a body to its end, when it is its turn.
    async fn read<B>(&self, body: B) -> Result<Bytes, Refusal>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
    {
        let turn = match body.size_hint().exact().and_then(|length| u32::try_from(length).ok()) {
            Some(length) => self.reading.acquire_many(length).await,
            None => self.reading_untold.acquire().await,
        };
        let _turn = turn.map_err(|_never_closed| Refusal::Incomplete)?;
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
            Err(_broken) => Err(Refusal::Incomplete),
        }
    }

    /// Lets a rightly signed webhook in, and reads what it says.
    fn admit(&self, fields: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
        // It is of Sentry's clock, while ours may be ahead of every other one.
        timestamp::check(fields, self.clock.system())?;
        let now = self.clock.now();
        let digest = BodyDigest::of(body);
        self.intake.lock().unwrap_or_else(PoisonError::into_inner).admit(digest, now)?;
        // Remembered although it may say nothing: it would say nothing the next time either.
        serde_json::from_slice(body).map_err(|_| Refusal::NotJson)
    }
}

/// Gives an answer the fields that every answer has.
fn dressed(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::fmt::Write;
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};
    use std::time::UNIX_EPOCH;

    use aws_lc_rs::hmac;
    use http_body::{Frame, SizeHint};
    use http_body_util::{Channel, Empty};
    use tokio::time::sleep;

    use super::*;
    use crate::metrics::LabelValues;
    use crate::metrics::exposition::Exposition;
    use crate::webhooks::bucket::BURST;

    const SECRET: &str = "a client secret of Sentry's";

    /// Webhooks that are answered in a process with nothing else in it.
    struct Bench {
        webhooks: Webhooks,
        metrics: Arc<Metrics>,
        purged: Arc<Mutex<Vec<Vec<String>>>>,
    }

    impl Bench {
        fn new() -> Self {
            let purged = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&purged);
            let purge = Purge::new(move |tags: &[Tag]| {
                noted.lock().unwrap().push(tags.iter().map(Tag::to_string).collect());
            });
            let metrics = Arc::new(Metrics::new(UNIX_EPOCH, &LabelValues::default()));
            let secret = Secret::new(SECRET.to_owned());
            let webhooks = Webhooks::new(&secret, Clock::start(), Arc::clone(&metrics), purge);
            Self { webhooks, metrics, purged }
        }

        /// Returns a webhook as Sentry sends it at this moment.
        fn webhook(&self, body: &[u8]) -> Request<Full<Bytes>> {
            let now = self.webhooks.clock.system().duration_since(UNIX_EPOCH).unwrap().as_secs();
            Request::post(PATH)
                .header("content-type", "application/json")
                .header("request-id", "7a4a2b2ea1fd4c0f8b5ac50bd1ddbdbf")
                .header("sentry-hook-resource", "issue")
                .header("sentry-hook-timestamp", now)
                .header("sentry-hook-signature", signature(body))
                .body(Full::new(Bytes::copy_from_slice(body)))
                .unwrap()
        }

        async fn send(&self, webhook: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Value) {
            whole(self.webhooks.answer(webhook).await).await
        }

        /// Sends a webhook, which must end in a certain way and be counted as just that.
        async fn check(&self, webhook: Request<Full<Bytes>>, expected: (u16, &str)) -> (HeaderMap, Value) {
            let (status, label) = expected;
            let mut counts = self.counts();
            let (found, fields, body) = self.send(webhook).await;
            assert_eq!(found.as_u16(), status, "{body}");
            *counts.get_mut(label).unwrap() += 1;
            assert_eq!(self.counts(), counts);
            if !found.is_success() {
                assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
            }
            (fields, body)
        }

        async fn refuses(&self, webhook: Request<Full<Bytes>>, expected: (u16, &str)) {
            let before = self.purges();
            self.check(webhook, expected).await;
            assert_eq!(self.purges(), before, "nothing is purged");
        }

        fn purges(&self) -> usize {
            self.purged.lock().unwrap().len()
        }

        /// Returns how many webhooks have ended in each way.
        fn counts(&self) -> BTreeMap<String, u64> {
            let rendered = self.metrics.encode(Exposition::Text);
            let series = |line: &str| {
                let (label, count) =
                    line.strip_prefix("sentrybox_webhooks_total{outcome=\"")?.split_once("\"} ")?;
                Some((label.to_owned(), count.parse().unwrap()))
            };
            rendered.lines().filter_map(series).collect()
        }

        fn counted(&self, label: &str) -> u64 {
            self.counts()[label]
        }

        fn total(&self) -> u64 {
            self.counts().values().sum()
        }
    }

    const ACCEPTED: (u16, &str) = (200, "accepted");
    const BAD_SIGNATURE: (u16, &str) = (403, "bad-signature");
    const MALFORMED: (u16, &str) = (400, "malformed");
    const OUTDATED: (u16, &str) = (400, "outdated");
    const REPLAYED: (u16, &str) = (409, "replayed");
    const TOO_LARGE: (u16, &str) = (413, "too-large");

    fn signature(body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let mut digits = String::new();
        for byte in hmac::sign(&key, body).as_ref() {
            write!(digits, "{byte:02x}").unwrap();
        }
        digits
    }

    async fn whole(response: Response<Full<Bytes>>) -> (StatusCode, HeaderMap, Value) {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.headers["content-type"], "application/json");
        assert_eq!(head.headers["cache-control"], "no-store");
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        (head.status, head.headers, serde_json::from_slice(&body).unwrap())
    }

    fn with(mut webhook: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
        webhook.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        webhook
    }

    fn without(mut webhook: Request<Full<Bytes>>, name: &str) -> Request<Full<Bytes>> {
        webhook.headers_mut().remove(name).unwrap();
        webhook
    }

    /// An issue's webhook in the shape in which Sentry sends it.
    fn issue(number: u32) -> Vec<u8> {
        serde_json::json!({
            "action": "resolved",
            "installation": { "uuid": "24b397fc-a86e-43ef-9297-949e21b82480" },
            "data": { "issue": {
                "url": format!("https://sentry.io/api/0/organizations/acme/issues/{number}/"),
                "web_url": format!("https://acme.sentry.io/issues/{number}/"),
                "project_url": "https://acme.sentry.io/issues/?project=4509877862268928",
                "id": number.to_string(),
                "shortId": format!("PYTHON-{number}"),
                "title": "canary",
                "status": "resolved",
                "statusDetails": {},
                "project": { "id": "4509877862268928", "name": "python", "slug": "python" },
            } },
            "actor": { "type": "user", "id": 1, "name": "colleen" },
        })
        .to_string()
        .into_bytes()
    }

    #[tokio::test]
    async fn a_signed_webhook_purges_what_it_is_about_and_says_so() {
        let bench = Bench::new();
        let (_, body) = bench.check(bench.webhook(&issue(7)), ACCEPTED).await;
        let purged = ["issue:7", "issue:PYTHON-7", "issues:acme", "unplaced"];
        assert_eq!(body, serde_json::json!({ "purged": purged }));
        assert_eq!(*bench.purged.lock().unwrap(), [purged]);
    }

    #[tokio::test]
    async fn what_it_is_about_is_told_by_the_body_alone() {
        let bench = Bench::new();
        for (number, resource) in
            [(1, "installation"), (2, "metric_alert"), (3, ""), (4, "issue:9 issues:evil")]
        {
            let webhook = with(bench.webhook(&issue(number)), "sentry-hook-resource", resource);
            let (_, body) = bench.check(webhook, ACCEPTED).await;
            assert_eq!(body["purged"][0], format!("issue:{number}"), "{resource}");
        }
        bench.check(without(bench.webhook(&issue(5)), "sentry-hook-resource"), ACCEPTED).await;
    }

    #[tokio::test]
    async fn without_the_bodys_own_signature_nothing_happens() {
        let bench = Bench::new();
        let body = issue(7);
        let right = signature(&body);
        let flipped = if right.ends_with('0') { "1" } else { "0" };
        for wrong in [
            "",
            &right.to_uppercase().replace(|letter: char| letter.is_ascii_digit(), "A"),
            &right[1..],
            &right[..62],
            &format!("{right}00"),
            &format!("sha256={right}"),
            &format!("{}{flipped}", &right[..63]),
            &signature(&issue(8)),
        ] {
            let webhook = with(bench.webhook(&body), "sentry-hook-signature", wrong);
            bench.refuses(webhook, BAD_SIGNATURE).await;
        }
        bench.refuses(without(bench.webhook(&body), "sentry-hook-signature"), BAD_SIGNATURE).await;
        let mut twice = bench.webhook(&body);
        twice.headers_mut().append("sentry-hook-signature", HeaderValue::from_str(&right).unwrap());
        bench.refuses(twice, BAD_SIGNATURE).await;
        let mut changed = body.clone();
        changed[10] ^= 1;
        let webhook = with(bench.webhook(&changed), "sentry-hook-signature", &right);
        bench.refuses(webhook, BAD_SIGNATURE).await;
        bench.check(bench.webhook(&body), ACCEPTED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_from_more_than_ten_minutes_away_is_refused() {
        let bench = Bench::new();
        let now = bench.webhooks.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let at = |time: &str| with(bench.webhook(&issue(7)), "sentry-hook-timestamp", time);
        bench.refuses(without(bench.webhook(&issue(7)), "sentry-hook-timestamp"), MALFORMED).await;
        for time in ["", "now", "-1", "1.5"] {
            bench.refuses(at(time), MALFORMED).await;
        }
        for time in [0, now - 620, now + 620] {
            bench.refuses(at(&time.to_string()), OUTDATED).await;
        }
        bench.check(at(&(now - 580).to_string()), ACCEPTED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_purges_once_in_ten_minutes_whatever_its_fields_say() {
        let bench = Bench::new();
        bench.check(bench.webhook(&issue(7)), ACCEPTED).await;
        for seconds in [0, 1, 590] {
            sleep(Duration::from_secs(seconds)).await;
            // With the time of this moment, which is not signed.
            let again = with(bench.webhook(&issue(7)), "sentry-hook-resource", "comment");
            bench.refuses(with(again, "request-id", &seconds.to_string()), REPLAYED).await;
        }
        sleep(Duration::from_secs(10)).await;
        bench.check(bench.webhook(&issue(7)), ACCEPTED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_are_told_when_to_come_again_and_then_let_in() {
        let bench = Bench::new();
        for number in 0..BURST {
            bench.check(bench.webhook(&issue(number)), ACCEPTED).await;
        }
        let (fields, _) = bench.check(bench.webhook(&issue(BURST)), (429, "rate-limited")).await;
        assert_eq!(fields["retry-after"], "1");
        assert_eq!(bench.purges(), 100);
        sleep(Duration::from_secs(1)).await;
        bench.check(bench.webhook(&issue(BURST)), ACCEPTED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_know_the_secret_takes_nothing_from_those_who_do() {
        let bench = Bench::new();
        for number in 0..1_000 {
            let webhook = with(bench.webhook(&issue(number)), "sentry-hook-signature", &signature(b"x"));
            assert_eq!(bench.send(webhook).await.0, StatusCode::FORBIDDEN);
        }
        // Not from the rate, and not from what is remembered.
        for number in 0..BURST {
            bench.check(bench.webhook(&issue(number)), ACCEPTED).await;
        }
    }

    #[tokio::test]
    async fn only_post_is_answered() {
        let bench = Bench::new();
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let mut webhook = bench.webhook(&issue(7));
            *webhook.method_mut() = method;
            let (fields, _) = bench.check(webhook, (405, "wrong-method")).await;
            assert_eq!(fields["allow"], "POST");
        }
        assert_eq!(bench.purges(), 0);
    }

    #[tokio::test]
    async fn a_signed_body_that_is_not_json_purges_nothing() {
        let bench = Bench::new();
        let deep = "[".repeat(200_000);
        let closed = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for body in [
            &b""[..],
            b"{",
            b"{\"data\":{}} trailing",
            b"{\"data\":\"\xff\xfe\"}",
            b"data=%7B%7D",
            b"\0\0\0\0",
            deep.as_bytes(),
            closed.as_bytes(),
        ] {
            bench.refuses(bench.webhook(body), MALFORMED).await;
        }
    }

    #[tokio::test]
    async fn of_a_name_that_stands_twice_in_the_body_the_last_counts() {
        let bench = Bench::new();
        let body = br#"{"data":{"issue_id":1,"issue_id":2}}"#;
        let (_, body) = bench.check(bench.webhook(body), ACCEPTED).await;
        assert_eq!(body["purged"], serde_json::json!(["issue:2", "issues"]));
    }

    #[tokio::test]
    async fn a_body_of_the_largest_size_is_read_and_one_byte_more_is_not() {
        let bench = Bench::new();
        let padded = |length: usize| {
            let mut body = issue(7);
            body.resize(length, b' ');
            body
        };
        bench.refuses(bench.webhook(&padded(MAX_BODY + 1)), TOO_LARGE).await;
        bench.check(bench.webhook(&padded(MAX_BODY)), ACCEPTED).await;
    }

    /// A body whose length is told or not, which counts how often it is asked for more, and never ends.
    struct Endless {
        told: u64,
        asked: Arc<AtomicUsize>,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; 64 * 1024])))))
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.told);
            hint
        }
    }

    #[tokio::test]
    async fn a_huge_body_is_not_read_to_its_end_and_one_that_says_so_not_at_all() {
        let bench = Bench::new();
        for (told, most) in [(u64::MAX, 0), (1024 * 1024 + 1, 0), (0, 17)] {
            let asked = Arc::new(AtomicUsize::new(0));
            let body = Endless { told, asked: Arc::clone(&asked) };
            let webhook = bench.webhook(b"").map(|_| body);
            let (status, _, _) = whole(bench.webhooks.answer(webhook).await).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(asked.load(Ordering::Relaxed), most, "{told}");
        }
        assert_eq!((bench.counted("too-large"), bench.total(), bench.purges()), (3, 3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_waited_for_three_seconds() {
        let bench = Bench::new();
        let before = bench.webhooks.clock.now();
        let (_sender, body) = Channel::<Bytes>::new(1);
        let webhook = bench.webhook(b"").map(|_| body);
        let (status, _, _) = whole(bench.webhooks.answer(webhook).await).await;
        assert_eq!((status, bench.counted("incomplete")), (StatusCode::REQUEST_TIMEOUT, 1));
        assert_eq!(bench.webhooks.clock.now().duration_since(before).unwrap().as_secs(), 3);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_purges_nothing() {
        let bench = Bench::new();
        let (sender, body) = Channel::<Bytes, io::Error>::new(1);
        sender.abort(io::Error::other("gone"));
        let webhook = bench.webhook(b"").map(|_| body);
        let (status, _, _) = whole(bench.webhooks.answer(webhook).await).await;
        assert_eq!((status, bench.counted("incomplete")), (StatusCode::REQUEST_TIMEOUT, 1));
        assert_eq!(bench.purges(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_untold_length_wait_their_turn_and_hold_up_no_others() {
        let bench = Arc::new(Bench::new());
        let mut senders = Vec::new();
        for _ in 0..MOST_UNTOLD {
            let (sender, body) = Channel::<Bytes>::new(1);
            senders.push(sender);
            let (webhook, bench) = (bench.webhook(b"").map(|_| body), Arc::clone(&bench));
            tokio::spawn(async move { bench.webhooks.answer(webhook).await });
        }
        sleep(Duration::from_secs(1)).await;
        let before = bench.webhooks.clock.now();
        let waited = || bench.webhooks.clock.now().duration_since(before).unwrap().as_secs();
        assert_eq!(bench.send(bench.webhook(&issue(7))).await.0, StatusCode::OK);
        assert_eq!(waited(), 0, "Sentry tells the length");
        let (mut sender, body) = Channel::<Bytes>::new(1);
        sender.send_data(Bytes::from(issue(8))).await.unwrap();
        drop(sender);
        let untold = bench.webhook(&issue(8)).map(|_| body);
        assert_eq!(whole(bench.webhooks.answer(untold).await).await.0, StatusCode::OK);
        // When the others had had their time.
        assert_eq!(waited(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_of_this_moment_is_taken_although_the_systems_clock_was_set_back() {
        let bench = Bench::new();
        // As after a backward step: ours goes on from where it was.
        bench.webhooks.clock.jump(Duration::from_hours(2));
        bench.check(bench.webhook(&issue(7)), ACCEPTED).await;
        bench.refuses(bench.webhook(&issue(7)), REPLAYED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_one_webhook_leaves_the_others_their_turn() {
        let bench = Arc::new(Bench::new());
        let poisoned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _locked = bench.webhooks.intake.lock();
            panic!("on purpose");
        }));
        assert!(poisoned.is_err() && bench.webhooks.intake.is_poisoned());
        for _ in 0..2 * MOST_UNTOLD {
            let body =
                Full::new(Bytes::from_static(b"{}")).map_frame(|_| -> Frame<Bytes> { panic!("on purpose") });
            let (webhook, bench) = (bench.webhook(b"{}").map(|_| body), Arc::clone(&bench));
            let answer = tokio::spawn(async move { bench.webhooks.answer(webhook).await });
            assert!(answer.await.unwrap_err().is_panic());
        }
        bench.check(bench.webhook(&issue(7)), ACCEPTED).await;
    }

    #[tokio::test]
    async fn a_listener_of_its_own_knows_one_path_only() {
        let bench = Bench::new();
        for path in ["/", "/purge", "/metrics", "/webhooks/", "/webhooks/sentry/", "/webhooks/Sentry"] {
            let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
            let (status, _, _) = whole(bench.webhooks.answer_alone(request).await).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(bench.total(), 0);
        let (status, _, _) = whole(bench.webhooks.answer_alone(bench.webhook(&issue(7))).await).await;
        assert_eq!((status, bench.purges()), (StatusCode::OK, 1));
    }

    #[test]
    fn nothing_prints_the_secret() {
        assert!(!format!("{:?}", Bench::new().webhooks).contains(SECRET));
    }
}
