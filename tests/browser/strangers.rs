//! Pages of other sites, and readers without the token: what they get.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use http::StatusCode;
use sentrybox::sandbox::people::OWNER_TOKEN;

use crate::browser::{Exchange, REBOUND};
use crate::chapters::Scene;
use crate::patience::eventually;

/// A token that must be found nowhere.
const TOKEN: &str = "canary-4f1d0c9a7be35268";

/// A page that tries to purge what is not its own.
const HOSTILE_PAGE: &str = include_str!("hostile.html");

/// Another host, which it asks, too.
const ELSEWHERE: &str = "elsewhere.test";

/// How many attempts it makes.
const ATTEMPTS: usize = 5;

impl Scene {
    /// Lets other sites try.
    pub(crate) async fn other_sites_are_refused(&mut self) {
        let before = self.proxy.metrics(&self.client).await;
        self.a_hostile_page_is_refused().await;
        self.a_rebound_name_is_refused().await;
        let after = self.proxy.metrics(&self.client).await;
        for untouched in ["sentrybox_purged_total", "sentrybox_invalidations_total"] {
            assert_eq!(after.sum(untouched, ""), before.sum(untouched, ""), "{untouched}");
        }
        self.note(
            "a page of another site purges nothing, and a name that was made to point here shows nothing",
        );
    }

    async fn a_hostile_page_is_refused(&self) {
        let site = serve_hostile_page(&self.proxy.admin);
        self.browser.open(&format!("http://{site}/")).await;
        eventually(async || {
            let title: String = self.browser.run("return document.title").await;
            if title == "done" { Ok(()) } else { Err("the end of all attempts") }
        })
        .await;
        let exchanges = self.browser.must_ask_only(&[&site, &self.proxy.admin, ELSEWHERE]).await;
        // Whoever asks another host is seen, and gets nowhere: so nobody else did.
        assert!(exchanges.contains(&Exchange::Asked(format!("http://{ELSEWHERE}/"))), "{exchanges:?}");
        let answers: Vec<_> = exchanges
            .iter()
            .filter_map(|exchange| match exchange {
                Exchange::Answered(url, status) if url.ends_with("/purge") => Some(*status),
                Exchange::Answered(..) | Exchange::Asked(_) => None,
            })
            .collect();
        assert_eq!(answers, [403; ATTEMPTS]);
    }

    async fn a_rebound_name_is_refused(&self) {
        let port = self.proxy.admin.rsplit(':').next().unwrap();
        self.browser.open(&format!("http://{REBOUND}:{port}/dashboard")).await;
        let shown: String = self.browser.run("return document.body.innerText").await;
        assert!(shown.contains("only under localhost or an IP address"), "{shown}");
        // Both are noted by Chromium itself, as errors.
        self.browser.console().await;
        self.browser.exchanges().await;
    }

    /// Puts a token on the door.
    pub(crate) async fn the_token_is_needed(&mut self) {
        let mut proxy = self.proxy_with_token(TOKEN);
        proxy.ask(&self.client, "/api/0/organizations/org-001/projects/", OWNER_TOKEN).await;
        for token in ["", "canary", OWNER_TOKEN] {
            let answer = self.client.get(&proxy.dashboard(), token).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert!(!answer.text().contains("data-value"));
        }
        // Whoever reads has given it to the browser once, as the password of any name.
        self.browser.open(&format!("http://operator:{TOKEN}@{}/", proxy.admin)).await;
        self.browser.text_with("freshness", "live, ").await;
        self.browser.text_with("stored", "/projects/").await;
        self.choose("purge-kind", "organization").await;
        self.browser.element("purge-name").await.send_keys("org-001\n").await.unwrap();
        self.browser.text_with("purge-result", "1 stored responses marked stale").await;
        self.browser.must_be_quiet(&proxy.admin).await;
        assert!(!self.browser.source().await.contains(TOKEN));
        assert!(!proxy.logged().contains(TOKEN));
        self.note("with a token set the page is shown to whoever has it, works, and tells it nobody");

        proxy.end();
        self.browser.text_with("trouble", "not live").await;
        self.note("the page says so when what it shows is not live");
    }
}

/// Serves the hostile page on loopback to whoever asks, until the process ends.
fn serve_hostile_page(victim: &str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let site = listener.local_addr().unwrap().to_string();
    let page = HOSTILE_PAGE.replace("{{victim}}", victim);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The request is of no interest; what closes before it has sent one is none.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    site
}
