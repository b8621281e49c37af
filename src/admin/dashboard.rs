//! The dashboard: one page that says what the proxy is doing, what it saves and what it is short of.
//!
//! A task takes a sample of the metrics every few seconds; the page draws the last hours from them, and asks again by itself.
//! All that it needs comes from here: style, script and pictures are our own, and nothing is asked of another host.
//!
//! Invariants: memory is bounded, and what is stored is counted at most every few seconds, however many look on; a request
//! waits for it only while the budget's lock is held to copy what is shown; no credential is shown. Not here: who may look (`admin::guard`), purging (`admin`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode, header};
use tokio::time::{self, MissedTickBehavior};

use crate::admin::answer::{Reply, answer};
use crate::admin::dashboard::events::{EventKind, Events};
use crate::admin::dashboard::history::{History, INTERVAL, Totals};
use crate::admin::dashboard::panels::Scene;
use crate::admin::dashboard::range::{COLUMNS, Range};
use crate::admin::dashboard::reading::Reading;
use crate::admin::readiness::Readiness;
use crate::cache::store::holdings::Holding;
use crate::proxy::Proxy;
use crate::routes::RouteLabel;

pub mod chart;
pub mod events;
pub mod history;
pub mod html;
pub mod panels;
pub mod range;
pub mod reading;

/// How many budgets are shown.
const BUDGETS: usize = 12;

/// How long it is not counted anew what is stored: that walks through all of it.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// What the page may load and do: what comes from here, and nothing in between the lines.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'none'; \
     base-uri 'none'; frame-ancestors 'none'",
);

const PAGE: &str = include_str!("dashboard/page.html");

/// A part of the dashboard that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The page.
    Page,
    /// What moves in it.
    Panels,
    /// Its style sheet.
    Style,
    /// Its script.
    Script,
    /// Its icon.
    Icon,
}

/// The dashboard.
#[derive(Debug)]
pub struct Dashboard {
    proxy: Proxy,
    readiness: Readiness,
    past: Mutex<Past>,
    stored: tokio::sync::Mutex<Option<Stored>>,
}

/// What was seen so far.
#[derive(Debug)]
struct Past {
    history: History,
    events: Events,
}

/// What was stored at some moment.
#[derive(Debug, Clone)]
struct Stored {
    at: SystemTime,
    by_route: BTreeMap<RouteLabel, Holding>,
}

impl Dashboard {
    /// Begins to look on.
    pub fn new(proxy: Proxy, readiness: Readiness) -> Self {
        let (reading, now) = (Reading::take(proxy.metrics()), proxy.clock().now());
        let past =
            Past { history: History::begin(Totals::of(&reading)), events: Events::begin(&reading, now) };
        Self { proxy, readiness, past: Mutex::new(past), stored: tokio::sync::Mutex::new(None) }
    }

    /// Takes a sample every few seconds, for ever.
    pub async fn look_on(self: Arc<Self>) {
        let mut interval = time::interval(INTERVAL);
        // A suspended machine has nothing to catch up on.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.sample();
        }
    }

    /// Takes a sample.
    pub fn sample(&self) {
        let (reading, now) = (Reading::take(self.proxy.metrics()), self.proxy.clock().now());
        let mut past = self.past();
        past.history.note(Totals::of(&reading), now);
        past.events.read(&reading, now);
    }

    /// Notes that an operator purged something.
    pub fn note_purge(&self, detail: String) {
        self.past().events.note(EventKind::Purged, detail, self.proxy.clock().now());
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers with a part of the dashboard; the query may say how much time is shown.
    pub async fn show(&self, part: Part, query: Option<&str>) -> Reply {
        let range = Range::of(query);
        match part {
            Part::Page => page(range, &self.panels(range).await),
            Part::Panels => answer(StatusCode::OK, "text/html; charset=utf-8", self.panels(range).await),
            Part::Style => asset("text/css; charset=utf-8", include_str!("dashboard/style.css")),
            Part::Script => asset("text/javascript; charset=utf-8", include_str!("dashboard/script.js")),
            Part::Icon => asset("image/svg+xml", include_str!("dashboard/icon.svg")),
        }
    }

    async fn panels(&self, range: Range) -> String {
        let stored = self.stored().await;
        let (reading, now) = (Reading::take(self.proxy.metrics()), self.proxy.clock().now());
        let (columns, events) = {
            let past = self.past();
            (past.history.columns(range.span(), COLUMNS, now), past.events.latest().cloned().collect())
        };
        let scene = Scene {
            reading: &reading,
            columns,
            range,
            budgets: self.proxy.shortest_budgets(BUDGETS),
            stored,
            events,
            readiness: self.readiness.state().label(),
            now,
        };
        scene.write()
    }

    /// Returns what is stored, counted a moment ago at the most: once for all who ask at a time.
    async fn stored(&self) -> BTreeMap<RouteLabel, Holding> {
        let mut known = self.stored.lock().await;
        let now = self.proxy.clock().now();
        let is_recent = |stored: &&Stored| now.duration_since(stored.at).unwrap_or_default() < COUNTED_FOR;
        if let Some(recent) = known.as_ref().filter(is_recent) {
            return recent.by_route.clone();
        }
        let by_route = self.proxy.stored_by_route().await;
        *known = Some(Stored { at: now, by_route: by_route.clone() });
        by_route
    }
}

/// Writes the page around the panels.
fn page(range: Range, panels: &str) -> Reply {
    let link = |offered: Range| {
        let (label, name) = (offered.label(), offered.name());
        let current = if offered == range { " aria-current=\"true\"" } else { "" };
        format!("<a href=\"?range={label}\"{current}>{name}</a>")
    };
    let ranges = Range::ALL.map(link).concat();
    let page = PAGE
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{range}}", range.label())
        .replace("{{ranges}}", &ranges)
        .replace("{{panels}}", panels);
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", page);
    let fields = page.headers_mut();
    fields.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    page
}

fn asset(content_type: &'static str, text: &'static str) -> Reply {
    answer(StatusCode::OK, content_type, text.to_owned())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::testing::unasked;

    async fn text(reply: Reply) -> String {
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn dashboard() -> Dashboard {
        Dashboard::new(unasked(), Readiness::starting())
    }

    #[tokio::test]
    async fn the_page_holds_what_moves_and_asks_nothing_of_another_host() {
        let page = dashboard().show(Part::Page, Some("range=1h")).await;
        assert_eq!(page.headers()["content-security-policy"], POLICY);
        let page = text(page).await;
        assert!(!page.contains("{{") && page.contains("id=\"requests-total\" data-value=\"0\""), "{page}");
        assert!(page.contains("<a href=\"?range=1h\" aria-current=\"true\">1 hour</a>"));
        for part in [Part::Page, Part::Panels, Part::Style, Part::Script, Part::Icon] {
            let text = text(dashboard().show(part, None).await).await;
            let hosts = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!hosts.contains("://") && !hosts.contains("\"//"), "{part:?}");
        }
    }

    #[tokio::test]
    async fn what_happens_is_shown() {
        let dashboard = dashboard();
        dashboard.note_purge("organization acme, soft: 7".to_owned());
        dashboard.proxy.metrics().panicked();
        dashboard.sample();
        let panels = text(dashboard.show(Part::Panels, None).await).await;
        for piece in ["organization acme, soft: 7", ">panic</b>", "id=\"refused-total\" data-value=\"1\""] {
            assert!(panels.contains(piece), "{piece} {panels}");
        }
    }
}
