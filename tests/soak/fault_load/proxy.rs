//! The proxy under test: its files, its process, its log and its figures.
//!
//! Its configuration lies as Kubernetes lays one: the file is a link into a folder that is itself a link. Every line that it
//! writes is read, and none may hold a token or a secret of its own.
//! Invariant: only a process that was started here is ended, by its own handle.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::Plan;
use crate::authority::Authority;
use crate::judge::{Judge, lock};
use crate::told::TRACER;
use crate::wire::Doors;

/// Longest that it may take to listen, or to end after SIGTERM: its grace, and slack.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(10 + 5);

/// How many of the last lines are told when it ends by itself.
const LAST_LINES: usize = 30;

/// The secret of webhooks.
pub(crate) fn webhook_secret() -> String {
    format!("webhooks-{TRACER}")
}

/// The proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    binary: PathBuf,
    folder: PathBuf,
    doors: Arc<Doors>,
    admin: SocketAddr,
    upstream: SocketAddr,
    authority: Authority,
    child: Mutex<Option<Child>>,
    starts: AtomicU64,
    revision: AtomicU64,
    /// Held by whoever changes files.
    files: Mutex<()>,
    judge: Arc<Judge>,
    lines: Arc<Lines>,
}

/// What it has written.
#[derive(Debug, Default)]
struct Lines {
    last: Mutex<VecDeque<String>>,
    kinds: Mutex<BTreeMap<String, u64>>,
}

impl Proxy {
    pub(crate) async fn start(
        plan: &Plan,
        (authority, upstream): (Authority, SocketAddr),
        judge: Arc<Judge>,
    ) -> Self {
        let folder = plan.folder.clone();
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let [tcp, tls, admin] = free_addresses();
        // A socket's path may have about a hundred bytes.
        let socket = std::env::temp_dir().join(format!("sentrybox-soak-{}.sock", std::process::id()));
        let doors = Arc::new(Doors::new((tcp, tls), socket, &authority));
        let proxy = Self {
            binary: plan.binary.clone(),
            folder,
            doors,
            admin,
            upstream,
            authority,
            child: Mutex::default(),
            starts: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            files: Mutex::default(),
            judge,
            lines: Arc::default(),
        };
        fs::write(proxy.folder.join("authority.pem"), proxy.authority.text()).unwrap();
        proxy.renew();
        proxy.swap();
        std::os::unix::fs::symlink("..data/sentrybox.toml", proxy.file()).unwrap();
        proxy.launch().await;
        proxy
    }

    pub(crate) fn doors(&self) -> Arc<Doors> {
        Arc::clone(&self.doors)
    }

    pub(crate) const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Returns how often it was started.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Starts the process, and waits until it listens.
    pub(crate) async fn launch(&self) {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("SENTRYBOX_") || text.ends_with("_PROXY") || text == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("--config")
            .arg(self.file())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.read_lines(child.stderr.take().unwrap());
        *lock(&self.child) = Some(child);
        self.starts.fetch_add(1, Ordering::Relaxed);
        let start = self.judge.now();
        while TcpStream::connect(self.admin).await.is_err()
            || TcpStream::connect(self.doors.tcp).await.is_err()
        {
            assert!(self.judge.now() < start + START, "it does not listen: {}", self.last_lines());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal.
    ///
    /// Once it has ended, its number may be somebody else's: then nothing is sent.
    pub(crate) fn signal(&self, signal: Signal) {
        let mut child = lock(&self.child);
        let child = child.as_mut().expect("it was started");
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let start = self.judge.now();
        loop {
            if let Some(status) = lock(&self.child).as_mut().expect("it was started").try_wait().unwrap() {
                return status;
            }
            if start + END < self.judge.now() {
                self.judge.error("it did not end in time after a signal");
                self.signal(Signal::KILL);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.child).as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Returns the last lines of its log.
    pub(crate) fn last_lines(&self) -> String {
        lock(&self.lines.last).iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Returns how many lines there were, by level and message.
    pub(crate) fn kinds_of_lines(&self) -> BTreeMap<String, u64> {
        lock(&self.lines.kinds).clone()
    }

    /// Returns the path of the configuration, as the proxy knows it.
    fn file(&self) -> PathBuf {
        self.folder.join("sentrybox.toml")
    }

    /// Puts a new configuration over the one that is there, as a careful editor does.
    pub(crate) fn rewrite(&self) {
        let _files = lock(&self.files);
        let text = self.configuration(self.revision.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.join("..data");
        fs::write(folder.join("new.toml"), text).unwrap();
        fs::rename(folder.join("new.toml"), folder.join("sentrybox.toml")).unwrap();
    }

    /// Writes one that makes no sense into the file that is there.
    pub(crate) fn spoil(&self) {
        let _files = lock(&self.files);
        fs::write(self.file(), "[listen]\naddress = 7\nnonsense = [\n").unwrap();
    }

    /// Puts a new folder in the place of the one that holds the configuration.
    pub(crate) fn swap(&self) {
        let _files = lock(&self.files);
        let revision = self.revision.fetch_add(1, Ordering::Relaxed);
        let name = format!("..revision-{revision}");
        fs::create_dir_all(self.folder.join(&name)).unwrap();
        fs::write(self.folder.join(&name).join("sentrybox.toml"), self.configuration(revision)).unwrap();
        let link = self.folder.join("..data");
        let old = fs::read_link(&link).ok();
        std::os::unix::fs::symlink(&name, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), link).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.folder.join(old)).unwrap();
        }
    }

    /// Renews the listener's certificate.
    pub(crate) fn renew(&self) {
        let (certificate, key) = self.authority.issue();
        for (name, text) in [("tls.key", key), ("tls.crt", certificate)] {
            let new = self.folder.join(format!("{name}.new"));
            fs::write(&new, text).unwrap();
            fs::rename(new, self.folder.join(name)).unwrap();
        }
    }

    fn configuration(&self, revision: u64) -> String {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let Doors { tcp, tls, unix, .. } = self.doors.as_ref();
        include_str!("sentrybox.toml")
            .replace("@tcp@", &tcp.to_string())
            .replace("@tls@", &tls.to_string())
            .replace("@unix@", &unix.display().to_string())
            .replace("@certificate@", &path("tls.crt"))
            .replace("@key@", &path("tls.key"))
            .replace("@authority@", &path("authority.pem"))
            .replace("@admin@", &self.admin.to_string())
            .replace("@upstream@", &self.upstream.to_string())
            .replace("@secret@", &format!("secret-of-the-soak-{TRACER}"))
            .replace("@webhooks@", &webhook_secret())
            .replace("@rate@", ["0.0", "0.5"].get(usize::try_from(revision % 2).unwrap()).unwrap())
    }

    /// Reads its lines for as long as there are any.
    fn read_lines(&self, pipe: ChildStderr) {
        let (lines, judge) = (Arc::clone(&self.lines), Arc::clone(&self.judge));
        let log = self.folder.join(format!("log-{}.jsonl", self.starts()));
        thread::spawn(move || lines.read(BufReader::new(pipe), &judge, &log));
    }
}

impl Lines {
    fn read(&self, pipe: BufReader<ChildStderr>, judge: &Judge, log: &Path) {
        let mut log = File::create(log).unwrap();
        for line in pipe.lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            if line.contains(TRACER) {
                judge.error(&format!("a line of the log holds a secret: {line}"));
            }
            if line.contains("panicked") {
                judge.error(&format!("a line of the log tells of a panic: {line}"));
            }
            *lock(&self.kinds).entry(kind_of(&line)).or_default() += 1;
            let mut last = lock(&self.last);
            last.push_back(line);
            if LAST_LINES < last.len() {
                last.pop_front();
            }
        }
    }
}

/// Returns a line's level and message.
fn kind_of(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { return "no JSON".to_owned() };
    let text = |name: &str| event.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    format!("{} {}", text("level"), text("message"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(child) = lock(&self.child).as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.doors.unix);
    }
}

/// Returns addresses on loopback where nobody listens, and from which nobody connects.
///
/// A port that the system chose may become the source of a connection while nobody listens there; even of one to itself.
pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(32_768);
    let mut ports = (1_024..lowest).rev();
    [(); N].map(|()| {
        let free = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        free.expect("some port is free").local_addr().unwrap()
    })
}
