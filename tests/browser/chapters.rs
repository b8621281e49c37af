//! The chapters, in their order: what the page shows under load, and that it is true.

use std::path::{Path, PathBuf};

use sentrybox::sandbox::Sandbox;
use tokio::time;

use crate::Plan;
use crate::browser::Browser;
use crate::client::Client;
use crate::figures::Figures;
use crate::load::{FAVOURITE, Load};
use crate::patience::eventually;
use crate::stage::{Proxy, sandbox};

/// Returns the exact value of each figure.
const READ_FIGURES: &str = "return Object.fromEntries([...document.querySelectorAll('[data-value]')].map(each => [each.id, each.dataset.value]))";

/// Returns the drawings of all series, chart by chart.
const READ_CHARTS: &str = "return [...document.querySelectorAll('#charts svg[role=img]')]\
    .map(chart => [...chart.querySelectorAll('path')].map(path => path.getAttribute('d')))";

/// Everything that a chapter may use.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) proxy: Proxy,
    pub(crate) browser: Browser,
    pub(crate) client: Client,
    binary: PathBuf,
    pub(crate) folder: PathBuf,
    passed: u32,
}

impl Scene {
    /// Starts everything.
    pub(crate) async fn set(plan: &Plan) -> Self {
        let (client, sandbox) = (Client::new(), sandbox().await);
        let log = plan.folder.join("sentrybox.log");
        let proxy = Proxy::start((&plan.binary, log), &sandbox.origin(), "");
        let browser = Browser::start(&client, &plan.folder.join("chromedriver.log")).await;
        let (binary, folder) = (plan.binary.clone(), plan.folder.clone());
        Self { sandbox, proxy, browser, client, binary, folder, passed: 0 }
    }

    /// Plays every chapter, and returns how many held.
    pub(crate) async fn play(&mut self, plan: &Plan) -> u32 {
        let load = Load::begin(&self.proxy.address, &self.sandbox);
        time::sleep(plan.ahead).await;
        self.numbers_move_while_the_page_stays().await;
        self.passed("numbers move under load, and the page is not loaded anew for it").await;
        self.what_is_marked_stays().await;
        self.passed("what the reader has marked stays marked while numbers move").await;
        self.charts_are_drawn().await;
        self.passed("every chart is drawn, and drawn at once when the page is loaded again").await;
        self.figures_agree(load.stop().await).await;
        self.passed("every figure is what /metrics, upstream and the clients counted").await;
        self.tables_name_routes().await;
        self.passed("most-asked routes, stored routes, budgets and events are told").await;
        self.readers_are_served().await;
        self.purges().await;
        self.other_sites_are_refused().await;
        self.the_token_is_needed().await;
        self.passed
    }

    /// Ends everything.
    pub(crate) async fn strike(mut self) {
        self.browser.quit().await;
        self.proxy.end();
        self.sandbox.shutdown().await;
    }

    /// Starts another proxy before the same upstream, whose operators need a token.
    pub(crate) fn proxy_with_token(&self, token: &'static str) -> Proxy {
        let log = self.folder.join("sentrybox-token.log");
        Proxy::start((&self.binary, log), &self.sandbox.origin(), token)
    }

    /// Notes that a chapter held, and holds what every chapter must.
    pub(crate) async fn passed(&mut self, rule: &str) {
        self.browser.must_be_quiet(&self.proxy.admin).await;
        self.note(rule);
    }

    /// Notes that a chapter held which the console may have heard of.
    pub(crate) fn note(&mut self, rule: &str) {
        self.passed += 1;
        println!("ok  {rule}");
    }

    /// Returns where a picture goes.
    pub(crate) fn picture(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("dashboard-{name}.png"))
    }

    /// Opens the dashboard.
    pub(crate) async fn open_dashboard(&self) {
        self.browser.open(&self.proxy.dashboard()).await;
    }

    /// Returns the figures that the page shows.
    pub(crate) async fn figures(&self) -> Figures {
        self.browser.run(READ_FIGURES).await
    }

    async fn figure(&self, id: &str) -> u64 {
        self.figures().await.get(id).unwrap().parse().unwrap()
    }

    async fn numbers_move_while_the_page_stays(&self) {
        self.open_dashboard().await;
        self.browser.run::<()>("window.isTheSame = true").await;
        let first = self.figure("requests-total").await;
        let second = self.more_requests_than(first).await;
        self.more_requests_than(second).await;
        assert!(self.browser.text("freshness").await.starts_with("live, "));
        assert!(self.browser.run::<bool>("return window.isTheSame === true").await);
    }

    /// Waits until the page shows more requests, and returns how many.
    async fn more_requests_than(&self, before: u64) -> u64 {
        eventually(async || {
            let shown = self.figure("requests-total").await;
            if shown > before { Ok(shown) } else { Err(format!("more requests than {shown}")) }
        })
        .await
    }

    async fn what_is_marked_stays(&self) {
        const MARK: &str = "getSelection().selectAllChildren(document.querySelector('#asked tbody th'))";
        const READ_MARKED: &str = "return getSelection().toString()";
        self.browser.run::<()>(MARK).await;
        let marked: String = self.browser.run(READ_MARKED).await;
        assert!(marked.starts_with("/api/0/"), "{marked}");
        let before = self.figure("requests-total").await;
        self.more_requests_than(before).await;
        assert_eq!(self.browser.run::<String>(READ_MARKED).await, marked);
        self.browser.run::<()>("getSelection().removeAllRanges()").await;
    }

    async fn charts_are_drawn(&self) {
        // A sample is taken every few seconds; until then there is nothing to draw a line of.
        eventually(async || self.all_lines().await).await;
        // Once more from the start: the page comes with its history, whatever its script does.
        let page = self.client.get(&format!("{}dashboard", self.proxy.dashboard()), "").await.text();
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(!page.contains(" d=\"\""), "{page}");
        self.open_dashboard().await;
        self.all_lines().await.unwrap();
    }

    /// Returns whether there are four charts with a line or an area for each of their series.
    async fn all_lines(&self) -> Result<(), String> {
        let charts: Vec<Vec<String>> = self.browser.run(READ_CHARTS).await;
        let is_drawn =
            |series: &Vec<String>| !series.is_empty() && series.iter().all(|path| path.starts_with('M'));
        if charts.len() == 4 && charts.iter().all(is_drawn) {
            Ok(())
        } else {
            Err(format!("lines in {charts:?}"))
        }
    }

    async fn figures_agree(&self, answered: u64) {
        // What is in the air when the last answer is read is counted a moment later.
        eventually(async || {
            let (metrics, shown) = (self.proxy.metrics(&self.client).await, self.figures().await);
            let mut told = metrics.figures();
            let counted = [("requests-total", answered), ("upstream-total", self.sandbox.requests_total())];
            let is_counted = counted.iter().all(|(id, count)| told.get(*id) == Some(&count.to_string()));
            told.retain(|id, value| shown.get(id) != Some(value));
            if is_counted && told.is_empty() {
                Ok(())
            } else {
                Err(format!("{counted:?}, {told:?} in {shown:?}"))
            }
        })
        .await;
        for moved in ["saved-total", "stored-responses", "stored-bytes", "refused-total", "failed-total"] {
            assert!(self.figure(moved).await > 0, "{moved}");
        }
        // What is read is what is written, but for the thousands that stand apart.
        let written = self.browser.text("requests-total").await;
        let digits: String = written.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, answered.to_string());
    }

    async fn tables_name_routes(&self) {
        let browser = &self.browser;
        for section in ["asked", "stored"] {
            browser.text_with(section, FAVOURITE).await;
        }
        assert!(browser.text("budgets").await.contains("of 40 left"));
        // Upstream refused some, and failed on others: that is read off the metrics every few seconds.
        for event in ["started", "429", "upstream failed"] {
            browser.text_with("events", event).await;
        }
        assert!(!browser.source().await.contains("sntryu_"), "a client's token");
    }
}
