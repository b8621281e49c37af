//! Headless Chromium, driven through chromedriver.
//!
//! Invariants: both end with this, by the process group that they are in; what they write goes to a folder that is removed;
//! no name but `localhost` and [`REBOUND`] leads anywhere.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use http::Uri;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{By, Capabilities, WebDriver, WebElement};

use crate::client::Client;
use crate::patience::eventually;

/// A name that somebody made to point here.
pub(crate) const REBOUND: &str = "rebound.test";

/// How it is started, so that it asks nobody for anything by itself.
const SWITCHES: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--window-size=1440,1200",
];

/// A browser with one window.
#[derive(Debug)]
pub(crate) struct Browser {
    /// Ends the session before its processes end.
    driver: WebDriver,
    _process: Chromedriver,
}

/// chromedriver, and the browser that it has started.
#[derive(Debug)]
struct Chromedriver {
    process: Child,
    /// Home of both.
    _home: TempDir,
}

/// What went over the network, as the browser noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// A request, by its URL.
    Asked(String),
    /// An answer: the URL and the status.
    Answered(String, u64),
}

impl Browser {
    /// Starts both.
    pub(crate) async fn start(client: &Client, log: &Path) -> Self {
        let (process, port) = Chromedriver::start(log);
        let names = format!("MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost");
        let names = format!("--host-resolver-rules={names}");
        let switches: Vec<&str> = SWITCHES.into_iter().chain([names.as_str()]).collect();
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": switches },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            // What a page asks its reader is answered by a chapter, or the chapter fails.
            "unhandledPromptBehavior": "ignore",
        });
        let wanted: Capabilities = serde_json::from_value(wanted).unwrap();
        let driver = WebDriver::builder(format!("http://127.0.0.1:{port}"), wanted)
            .client(client.clone())
            .await
            .unwrap();
        Self { driver, _process: process }
    }

    /// Goes to a page, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Runs a script in the page, and returns what it returns.
    pub(crate) async fn run<T: DeserializeOwned>(&self, script: &str) -> T {
        let returned = self.driver.execute(script, Vec::new()).await.unwrap();
        let told = format!("{:?} from {script}", returned.json());
        returned.convert().unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// Sends a command of the developer tools.
    pub(crate) async fn command(&self, name: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(name, parameters).await.unwrap()
    }

    /// Returns the element of an id.
    pub(crate) async fn element(&self, id: &str) -> WebElement {
        self.driver.find(By::Id(id)).await.unwrap()
    }

    /// Returns the text of an element.
    pub(crate) async fn text(&self, id: &str) -> String {
        self.run(&format!("return document.getElementById('{id}').innerText")).await
    }

    /// Waits until the text of an element contains something, and returns the text.
    pub(crate) async fn text_with(&self, id: &str, part: &str) -> String {
        eventually(async || {
            let text = self.text(id).await;
            if text.contains(part) {
                Ok(text)
            } else {
                Err(format!("{part:?} in #{id}, which says {text:?}"))
            }
        })
        .await
    }

    /// Returns the page as it is now.
    pub(crate) async fn source(&self) -> String {
        self.driver.source().await.unwrap()
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        self.driver.action_chain().send_keys(keys).perform().await.unwrap();
    }

    /// Returns the id of what has the focus.
    pub(crate) async fn focus(&self) -> String {
        self.run("return document.activeElement?.id ?? ''").await
    }

    /// Waits for the question that the page asks its reader, answers it, and returns it.
    pub(crate) async fn answer(&self, answer: Answer) -> String {
        let question = eventually(async || self.driver.get_alert_text().await).await;
        match answer {
            Answer::Yes => self.driver.accept_alert().await.unwrap(),
            Answer::No => self.driver.dismiss_alert().await.unwrap(),
        }
        question
    }

    /// Returns what the console got since the last time.
    pub(crate) async fn console(&self) -> Vec<String> {
        let entries = self.driver.get_log("browser").await.unwrap();
        entries.into_iter().map(|entry| format!("{}: {}", entry.level, entry.message)).collect()
    }

    /// Returns what went over the network since the last time.
    pub(crate) async fn exchanges(&self) -> Vec<Exchange> {
        let entries = self.driver.get_log("performance").await.unwrap();
        entries.iter().filter_map(|entry| Exchange::of(&entry.message)).collect()
    }

    /// Fails when the console got anything, or anybody but `authority` was asked, since the last time.
    pub(crate) async fn must_be_quiet(&self, authority: &str) {
        assert_eq!(self.console().await, [""; 0]);
        self.must_ask_only(&[authority]).await;
    }

    /// Fails when anybody else was asked since the last time.
    pub(crate) async fn must_ask_only(&self, authorities: &[&str]) -> Vec<Exchange> {
        let exchanges = self.exchanges().await;
        for exchange in &exchanges {
            let Exchange::Asked(url) = exchange else { continue };
            let asked = authority_of(url);
            assert!(asked.is_none_or(|asked| authorities.contains(&asked.as_str())), "asked {url}");
        }
        exchanges
    }

    /// Ends the session, and with it the browser.
    pub(crate) async fn quit(self) {
        self.driver.quit().await.unwrap();
    }
}

/// What a reader answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
}

impl Exchange {
    /// Reads an entry of the performance log; `None` where it is about something else.
    fn of(message: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(message).unwrap();
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
        match text("/message/method")?.as_str() {
            "Network.requestWillBeSent" => text("/message/params/request/url").map(Self::Asked),
            "Network.responseReceived" => {
                let status = event.pointer("/message/params/response/status").and_then(Value::as_u64)?;
                Some(Self::Answered(text("/message/params/response/url")?, status))
            }
            _ => None,
        }
    }
}

/// Returns whom a URL makes the browser ask; `None` where nobody.
fn authority_of(url: &str) -> Option<String> {
    if url.starts_with("data:") || url.starts_with("about:") {
        return None;
    }
    let url: Uri = url.parse().unwrap();
    let authority = url.authority().unwrap();
    Some(authority.as_str().rsplit('@').next().unwrap().to_owned())
}

impl Chromedriver {
    /// Starts it, and returns its port, too.
    fn start(log: &Path) -> (Self, u16) {
        let home = tempfile::tempdir().unwrap();
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env("XDG_CACHE_HOME", home.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let chromedriver = Self { process, _home: home };
        let mut copy = File::create(log).unwrap();
        let port = listening(&mut lines, &mut copy);
        thread::spawn(move || io::copy(&mut lines, &mut copy));
        (chromedriver, port)
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        // The browser is in the group of the driver that started it, and outlives it.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}

/// Reads and copies what chromedriver says up to the line with its port.
fn listening(lines: &mut impl BufRead, copy: &mut impl Write) -> u16 {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "chromedriver ended before it listened");
        copy.write_all(line.as_bytes()).unwrap();
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim().trim_end_matches('.').parse().unwrap();
        }
    }
}
