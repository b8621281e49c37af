//! Operators, Sentry's webhooks and whoever changes files: what they do again and again, and what must follow.

use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sentrybox::clock::Clock;
use tokio::time::sleep;

use crate::ask::unique;
use crate::fault::Fault;
use crate::measuring::{self, operate};
use crate::proxy::webhook_secret;
use crate::schedule::Stage;
use crate::told;
use crate::wire::Protocol;

/// How often operators, webhooks and files do something.
const BEAT: Duration = Duration::from_millis(600);

/// Longest until what was changed is seen.
const PATIENCE: Duration = Duration::from_secs(15);

impl Stage {
    /// Writes a configuration, and waits until it holds.
    pub(crate) async fn expect_reloaded(&self) {
        let name = "sentrybox_config_last_reload_success_timestamp_seconds";
        let value = async |name| {
            let text = measuring::metrics(self.proxy.admin()).await.unwrap_or_default();
            measuring::value(&text, name)
        };
        let (before, begin) = (value(name).await, self.judge.now());
        // The time of a reload is told in seconds.
        sleep(Duration::from_secs(1)).await;
        self.proxy.rewrite();
        self.proxy.signal(Signal::HUP);
        while value(name).await <= before {
            if begin + PATIENCE < self.judge.now() {
                return self.judge.error("a configuration that makes sense is not taken up");
            }
            sleep(Duration::from_millis(100)).await;
        }
        if value("sentrybox_config_last_reload_successful").await != 1 {
            self.judge.error("the last reload was none");
        }
    }

    /// Does something again and again.
    pub(crate) async fn beat(&self, fault: Fault, lasting: Duration) {
        let end = self.judge.now() + lasting;
        for number in 0_u64.. {
            if end <= self.judge.now() {
                break;
            }
            match fault {
                Fault::NoSuchName => self.load.ask_control(number).await,
                Fault::Reload => {
                    self.proxy.rewrite();
                    self.proxy.signal(Signal::HUP);
                }
                Fault::BadConfig => {
                    self.proxy.spoil();
                    self.proxy.signal(Signal::HUP);
                }
                Fault::Swap => self.proxy.swap(),
                Fault::Renewal => self.proxy.renew(),
                Fault::Purge => self.purge(number).await,
                _ => self.webhook().await,
            }
            sleep(BEAT).await;
        }
        match fault {
            // Who starts again must find something that makes sense.
            Fault::BadConfig => {
                self.proxy.rewrite();
                self.proxy.signal(Signal::HUP);
            }
            Fault::Renewal => self.expect_renewed().await,
            _ => {}
        }
    }

    async fn purge(&self, number: u64) {
        let token = told::token(number % told::MARKS);
        // Not all of it hard: memory is compared while the store is full.
        let orders = [
            r#"{"everything":true,"mode":"soft"}"#.to_owned(),
            r#"{"organization":"soak","mode":"soft"}"#.to_owned(),
            format!(r#"{{"token":"{token}","mode":"hard"}}"#),
            r#"{"url":"/api/0/organizations/soak/projects/?page=1","mode":"hard"}"#.to_owned(),
        ];
        let order = orders.into_iter().cycle().nth(usize::try_from(number % 4).unwrap()).unwrap();
        let request =
            Request::post("/purge").header("host", "localhost").body(Full::new(Bytes::from(order))).unwrap();
        self.expect_done("purge", operate(self.proxy.admin(), request).await);
    }

    async fn webhook(&self) {
        let number = unique();
        let body = format!(
            r#"{{"action":"created","actor":{{"id":1,"name":"soak","type":"user"}},"data":{{"installation":{{"status":"installed","organization":{{"slug":"soak","id":2}},"app":{{"uuid":"2ebf071f-28df-4989-aca9-c37c763b278f","slug":"soak"}},"uuid":"{number}"}}}},"installation":{{"uuid":"{number}"}}}}"#
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, webhook_secret().as_bytes());
        let signature = hmac::sign(&key, body.as_bytes());
        let signature =
            signature.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let seconds = Clock::start().now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let request = Request::post("/webhooks/sentry")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("sentry-hook-resource", "installation")
            .header("sentry-hook-timestamp", seconds)
            .header("sentry-hook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.expect_done("webhook", operate(self.proxy.admin(), request).await);
    }

    /// Notes what became of an order; while the proxy is gone there is no answer.
    fn expect_done(&self, what: &str, answer: Option<(u16, String)>) {
        match answer {
            Some((200, _)) => self.judge.note(what),
            Some((status, text)) => self.judge.error(&format!("{what}: {status} {text}")),
            None => self.judge.note(&format!("{what}: no answer")),
        }
    }

    /// Waits until connections get the certificate that was issued last.
    async fn expect_renewed(&self) {
        let file = self.plan.folder.join("tls.crt");
        let begin = self.judge.now();
        while self.judge.now() < begin + PATIENCE {
            let issued = CertificateDer::from_pem_file(&file).unwrap();
            if let Ok(stream) = self.proxy.doors().secured(Protocol::One).await
                && stream.get_ref().1.peer_certificates().is_some_and(|shown| shown.first() == Some(&issued))
            {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.judge.error("a renewed certificate is not shown");
    }
}
