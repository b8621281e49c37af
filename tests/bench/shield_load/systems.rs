//! What stands between the clients and upstream: nothing, nginx, or sentrybox; each in a process of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use http::HeaderName;
use sentrybox::clock::Stopwatch;

use crate::parameters::{Token, tokens};

/// How long a system may take to listen.
const START: Duration = Duration::from_secs(10);

/// Key of the fingerprints; public, as the tokens are.
const SECRET: &str = "the-same-in-every-run-of-tests/bench/shield";

/// Where a system keeps its files, and which upstream it has.
pub(crate) struct Site<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) upstream: &'a str,
}

/// A system under load.
pub(crate) trait System {
    fn name(&self) -> &'static str;

    /// Where clients reach it.
    fn origin(&self) -> &str;

    /// The field in which it tells what its cache did.
    fn cache_field(&self) -> Option<HeaderName>;

    /// How many requests it has sent upstream before anybody asked, if it counts them.
    fn refreshes_ahead(&self) -> u64 {
        0
    }
}

/// No system: clients reach upstream itself.
pub(crate) struct Straight {
    origin: String,
}

impl Straight {
    pub(crate) fn start(site: &Site<'_>) -> Self {
        Self { origin: site.upstream.to_owned() }
    }
}

impl System for Straight {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn cache_field(&self) -> Option<HeaderName> {
        None
    }
}

/// nginx with the configuration beside this file.
pub(crate) struct Nginx {
    folder: PathBuf,
    process: Child,
    origin: String,
}

impl Nginx {
    pub(crate) fn start(site: &Site<'_>) -> Self {
        let folder = site.folder.join("nginx");
        // Nothing stored by an earlier run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let address = free_address();
        let configuration = include_str!("nginx.conf")
            .replace("@listen@", &address.to_string())
            .replace("@upstream@", site.upstream.trim_start_matches("http://"));
        fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let process = nginx(&folder).spawn().unwrap();
        let system = Self { folder, process, origin: format!("http://{address}") };
        let watch = Stopwatch::start();
        while TcpStream::connect(address).is_err() {
            assert!(watch.read() < START, "nginx does not listen; see {}", system.folder.display());
            thread::sleep(Duration::from_millis(20));
        }
        system
    }
}

impl System for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn cache_field(&self) -> Option<HeaderName> {
        Some(HeaderName::from_static("x-cache"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its workers along only when it is asked.
        let _ = nginx(&self.folder).args(["-s", "stop"]).status();
        let _ = self.process.wait();
    }
}

fn nginx(folder: &Path) -> Command {
    let log = File::options().create(true).append(true).open(folder.join("error.log")).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]).stderr(log);
    command
}

/// Returns an address on loopback where nobody listens.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The release build of sentrybox, which is told whose tokens belong together and else has its defaults.
pub(crate) struct Sentrybox {
    process: Child,
    origin: String,
    admin: SocketAddr,
}

impl Sentrybox {
    pub(crate) fn start(site: &Site<'_>, binary: &Path) -> Self {
        let configuration = site.folder.join("sentrybox.toml");
        fs::write(&configuration, sentrybox_configuration(site.upstream, binary)).unwrap();
        let mut process = clean(binary)
            .arg("--config")
            .arg(&configuration)
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut copy = File::create(site.folder.join("sentrybox.log")).unwrap();
        let (address, admin) = listening(&mut log, &mut copy);
        thread::spawn(move || io::copy(&mut log, &mut copy));
        Self { process, origin: format!("http://{address}"), admin }
    }
}

impl System for Sentrybox {
    fn name(&self) -> &'static str {
        "sentrybox"
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn cache_field(&self) -> Option<HeaderName> {
        Some(HeaderName::from_static("cache-status"))
    }

    fn refreshes_ahead(&self) -> u64 {
        let metrics = fetch(self.admin, "/metrics");
        let name = "sentrybox_upstream_refreshes_ahead_total ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Sentrybox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a command that our own environment does not configure.
fn clean(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTRYBOX_"))
    {
        command.env_remove(name);
    }
    command
}

fn sentrybox_configuration(upstream: &str, binary: &Path) -> String {
    let tokens = tokens();
    let alias = |user: u8| {
        let own = tokens.iter().filter(|token| token.user == user);
        let fingerprints: Vec<_> = own.map(|token| format!("\"{}\"", fingerprint(token, binary))).collect();
        format!("user-{user} = [{}]\n", fingerprints.join(", "))
    };
    let users: BTreeSet<u8> = tokens.iter().map(|token| token.user).collect();
    format!(
        "secret = \"{SECRET}\"\n\n[listen]\naddress = \"127.0.0.1:0\"\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n\
         [upstream]\nurl = \"{upstream}\"\n\n[budget.aliases]\n{}",
        users.into_iter().map(alias).collect::<String>(),
    )
}

/// Asks sentrybox itself, as an operator does.
fn fingerprint(token: &Token, binary: &Path) -> String {
    let mut process = clean(binary)
        .args(["fingerprint", "--token-stdin"])
        .env("SENTRYBOX_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(token.text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "sentrybox fingerprint failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Reads and copies the log up to the line that says where sentrybox listens.
fn listening(log: &mut impl BufRead, copy: &mut impl Write) -> (SocketAddr, SocketAddr) {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "sentrybox ended; it said: {said}");
        copy.write_all(line.as_bytes()).unwrap();
        said.push_str(&line);
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let address = |name| event.get(name)?.as_str()?.parse().ok();
        if let (Some(listen), Some(admin)) = (address("listen"), address("admin")) {
            return (listen, admin);
        }
    }
}

/// Returns the answer to a GET, head and body.
fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    io::read_to_string(stream).unwrap()
}
