//! Starts the built binary as a child process, learns its ports, keeps its output, and ends it.
//!
//! Invariants: a child that is dropped is killed, by its own id; nobody waits longer than [`LIMIT`] for it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest that a child may take to start, or to end.
const LIMIT: Duration = Duration::from_mins(1);

/// Returns a command that runs the built binary, cut off from the environment's own configuration.
pub(crate) fn sentrybox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentrybox"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("SENTRYBOX_") || text.ends_with("_PROXY") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// A proxy in a process of its own, both listeners on ports that the system chose.
#[derive(Debug)]
pub(crate) struct Binary {
    child: Child,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// Where operators reach it.
    pub(crate) admin: SocketAddr,
    output: Arc<Mutex<String>>,
    lines: Receiver<String>,
}

impl Binary {
    /// Starts `command` with both listeners on `127.0.0.1:0` and waits for the line that names the real ones.
    pub(crate) fn start(mut command: Command) -> Self {
        command
            .env("SENTRYBOX_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("SENTRYBOX_ADMIN__ADDRESS", "127.0.0.1:0")
            .env("SENTRYBOX_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        collect(child.stdout.take().unwrap(), Arc::clone(&output), sender.clone());
        collect(child.stderr.take().unwrap(), Arc::clone(&output), sender);
        let Some((address, admin)) = listening(&lines) else {
            let _ = child.kill();
            panic!("the child said nowhere where it listens; it said: {}", text(&output));
        };
        Self { child, address, admin, output, lines }
    }

    /// Returns the child's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything the child has written so far, standard output and error together.
    pub(crate) fn output(&self) -> String {
        text(&self.output)
    }

    /// Asks the child to end, as an operator or orchestrator would: SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks the child to read its configuration anew: SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until the child has ended and everything it wrote has been read.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // Both pipes close when it ends, and then the channel has no sender left.
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the child does not end; it said: {}", self.output())
                }
            }
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies lines from a pipe of the child into `output`, and to `sender`, until the pipe closes.
fn collect(pipe: impl Read + Send + 'static, output: Arc<Mutex<String>>, sender: Sender<String>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            output.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            let _ = sender.send(text);
            line.clear();
        }
    });
}

/// Waits for the line `{"message":"listening","listen":"…","admin":"…"}`, and reads the first address of each; `None` when
/// the child ends without it.
fn listening(lines: &Receiver<String>) -> Option<(SocketAddr, SocketAddr)> {
    loop {
        let line = lines.recv_timeout(LIMIT).ok()?;
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let address = |name| event.get(name)?.as_str()?.split(' ').next()?.parse().ok();
        if event.get("message").is_some_and(|message| message == "listening") {
            return Some((address("listen")?, address("admin")?));
        }
    }
}

/// Returns a copy of what was written so far.
fn text(output: &Mutex<String>) -> String {
    output.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_names_its_ports_and_ends_when_asked() {
        let mut command = Command::new("sh");
        command.arg("-c").arg(
            r#"sleep 60 >/dev/null 2>&1 & sleeper=$!
               trap 'kill $sleeper; echo bye; exit 3' TERM
               echo '{"message":"listening","listen":"127.0.0.1:1234","admin":"127.0.0.1:1235"}' >&2
               wait"#,
        );
        let mut child = Binary::start(command);
        assert_eq!((child.address.port(), child.admin.port()), (1234, 1235));
        child.terminate();
        assert_eq!(child.wait().code(), Some(3));
        assert!(child.output().ends_with("bye\n"), "{}", child.output());
    }
}
