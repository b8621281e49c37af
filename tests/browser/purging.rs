//! Purging through the form: by keyboard, by mouse, with a question, and in vain.

use sentrybox::sandbox::people::{OWNER_READ_ONLY_TOKEN, OWNER_TOKEN};
use thirtyfour::Key;
use thirtyfour::components::SelectElement;

use crate::browser::Answer;
use crate::chapters::Scene;
use crate::patience::eventually;

/// Of the organization that is purged, and of another one.
const PURGED: &str = "/api/0/organizations/org-001/projects/";
const KEPT: &str = "/api/0/organizations/org-002/projects/";

/// Most steps from the top of the page to the form.
const MOST_STEPS: u32 = 8;

impl Scene {
    /// Purges in every way that the form has.
    pub(crate) async fn purges(&mut self) {
        self.open_dashboard().await;
        self.an_organization_is_purged_by_keyboard().await;
        self.passed("an organization is purged by keyboard alone, for every token, and no other one is")
            .await;
        self.a_route_is_dropped_by_mouse().await;
        self.passed("a route is dropped by mouse").await;
        self.everything_is_purged_after_a_question().await;
        self.passed("everything is purged only after a question").await;
        self.what_cannot_be_purged_is_explained().await;
        self.note("what cannot be purged is explained beside the form");
    }

    /// Asks until a target is answered from the store.
    async fn warm(&self, target: &str, token: &str) {
        eventually(async || {
            let answer = self.proxy.ask(&self.client, target, token).await;
            if answer.is_hit() { Ok(()) } else { Err(format!("a hit: {}", answer.cache_status())) }
        })
        .await;
    }

    async fn purged_so_far(&self) -> u64 {
        self.proxy.metrics(&self.client).await.sum("sentrybox_purged_total", "")
    }

    /// Waits for the form's report, and returns how many responses it tells of.
    async fn reported(&self, done: &str) -> u64 {
        let report = self.browser.text_with("purge-result", &format!("stored responses {done}")).await;
        report.split(' ').next().unwrap().parse().unwrap()
    }

    async fn an_organization_is_purged_by_keyboard(&self) {
        for token in [OWNER_TOKEN, OWNER_READ_ONLY_TOKEN] {
            self.warm(PURGED, token).await;
            self.warm(KEPT, token).await;
        }
        let before = self.purged_so_far().await;
        let browser = &self.browser;
        let tab = String::from(Key::Tab.value());
        let mut order = Vec::new();
        while browser.focus().await != "purge-name" {
            assert!(order.len() < MOST_STEPS as usize, "the form is out of reach: {order:?}");
            browser.press(&tab).await;
            order.push(browser.focus().await);
        }
        assert!(order.ends_with(&["purge-kind".to_owned(), "purge-name".to_owned()]), "{order:?}");
        let outline: String =
            browser.run("return getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(outline, "solid", "where the focus is, is seen");
        browser.press(&format!("org-001{}", Key::Enter.value())).await;

        let reported = self.reported("marked stale").await;
        assert!(reported > 0);
        assert_eq!(self.purged_so_far().await - before, reported);
        let event = browser.text_with("events", "org-001").await;
        assert!(event.contains("purge") && event.contains(&format!("{reported} responses")), "{event}");
        for token in [OWNER_TOKEN, OWNER_READ_ONLY_TOKEN] {
            let answer = self.proxy.ask(&self.client, PURGED, token).await;
            assert!(answer.cache_status().contains("detail=purged"), "{}", answer.cache_status());
            let answer = self.proxy.ask(&self.client, KEPT, token).await;
            assert!(answer.is_hit(), "{}", answer.cache_status());
        }
    }

    async fn a_route_is_dropped_by_mouse(&self) {
        self.warm(KEPT, OWNER_TOKEN).await;
        let before = self.purged_so_far().await;
        self.choose("purge-kind", "route").await;
        self.choose("purge-mode", "hard").await;
        let name = self.browser.element("purge-name").await;
        name.clear().await.unwrap();
        name.send_keys("/api/0/organizations/{organization}/projects/").await.unwrap();
        self.browser.element("purge-submit").await.click().await.unwrap();
        let reported = self.reported("dropped").await;
        assert_eq!(self.purged_so_far().await - before, reported);
        let answer = self.proxy.ask(&self.client, KEPT, OWNER_TOKEN).await;
        assert!(answer.cache_status().contains("fwd=uri-miss"), "{}", answer.cache_status());
    }

    async fn everything_is_purged_after_a_question(&self) {
        self.warm(KEPT, OWNER_TOKEN).await;
        self.choose("purge-kind", "everything").await;
        let name = self.browser.element("purge-name").await;
        assert!(!name.is_enabled().await.unwrap(), "everything has no name");
        let before = self.purged_so_far().await;
        let button = self.browser.element("purge-submit").await;
        button.click().await.unwrap();
        assert!(self.browser.answer(Answer::No).await.contains("everything"));
        assert!(self.proxy.ask(&self.client, KEPT, OWNER_TOKEN).await.is_hit());
        button.click().await.unwrap();
        self.browser.answer(Answer::Yes).await;
        self.browser.text_with("events", "everything").await;
        let reported = self.reported("dropped").await;
        assert!(reported > 0);
        assert_eq!(self.purged_so_far().await - before, reported);
    }

    async fn what_cannot_be_purged_is_explained(&self) {
        self.choose("purge-kind", "credential").await;
        self.browser.element("purge-name").await.send_keys("nobody").await.unwrap();
        self.browser.element("purge-submit").await.click().await.unwrap();
        self.browser.text_with("purge-result", "16 hexadecimal digits").await;
        // Chromium itself notes each answer of 400 and more.
        let console = self.browser.console().await;
        let [line] = &console[..] else { panic!("{console:?}") };
        assert!(line.contains("/purge") && line.contains("400"), "{line}");
        self.browser.must_ask_only(&[&self.proxy.admin]).await;
    }

    /// Chooses an option of a list, by its value.
    pub(crate) async fn choose(&self, list: &str, value: &str) {
        let list = SelectElement::new(&self.browser.element(list).await).await.unwrap();
        list.select_by_value(value).await.unwrap();
    }
}
