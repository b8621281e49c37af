//! Runs one command of a client: in an environment of its own, within a bound, and keeps what it said.
//!
//! Invariants: a command sees no variable of ours but `PATH`, and no home folder of anybody's; what takes longer
//! than [`LIMIT`] is killed together with what it started, by its own process group.
//! Not here: which commands there are (`catalogue`), what is compared (`report`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use sentrybox::clock::Stopwatch;
use sentrybox::sandbox::people::OWNER_TOKEN;

use crate::catalogue::{Client, Home, Step};
use crate::stage::{Arrival, Side, Stage, here};

/// Longest that a command may take.
const LIMIT: Duration = Duration::from_mins(1);

/// How often a command is looked after.
const GLANCE: Duration = Duration::from_millis(5);

/// What is installed, and what is under test.
pub(crate) struct Installation {
    /// The release build of sentrybox.
    pub(crate) binary: PathBuf,
    /// Where `run` put the clients.
    pub(crate) clients: PathBuf,
    /// Where commands have their folders: outside of any repository, whose files and history some clients would read.
    pub(crate) homes: PathBuf,
    /// Where nobody may go: host and port of a listener that counts.
    pub(crate) outside: String,
}

/// How a command ended, and what it said; all that its user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `exit 0`, `signal 9`, or that it took too long.
    pub(crate) end: String,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Outcome {
    /// Returns whether the command did what it was asked.
    pub(crate) fn is_success(&self) -> bool {
        self.end == "exit 0"
    }
}

/// One run of a command: what it said, and what arrived at the sandbox meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) arrivals: Vec<Arrival>,
}

/// One client on one side.
pub(crate) struct Play<'a> {
    pub(crate) client: &'a Client,
    pub(crate) side: Side,
    pub(crate) installation: &'a Installation,
    pub(crate) stage: &'a Stage,
}

impl Play<'_> {
    /// Runs a step as often as it says.
    pub(crate) fn step(&self, step: &Step) -> Vec<Run> {
        (0..step.kind.times()).map(|_| self.run(step)).collect()
    }

    fn run(&self, step: &Step) -> Run {
        let arrived = self.stage.arrived();
        let folder = self.folder();
        match self.client.home {
            Home::Empty => empty(&folder),
            Home::Kept => fs::create_dir_all(&folder).unwrap(),
        }
        let outcome = self.tidied(bounded(&mut self.command(step, &folder), &folder), &folder);
        Run { outcome, arrivals: self.stage.arrivals_since(arrived) }
    }

    /// Returns the folder that a command has for itself.
    fn folder(&self) -> PathBuf {
        self.installation.homes.join(format!("{}-{}", self.client.file_name(), self.side))
    }

    fn command(&self, step: &Step, folder: &Path) -> Command {
        let mut words = self.client.program.iter().copied().chain(step.line.split_whitespace());
        let mut command = Command::new(self.filled(words.next().unwrap()));
        command.args(words.map(|word| self.filled(word)));
        command.env_clear().current_dir(folder).process_group(0).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"]
        {
            command.env(name, folder);
        }
        // Neither colours nor a width that is asked of a terminal.
        command.envs([
            ("NO_COLOR", "1"),
            ("TERM", "dumb"),
            ("COLUMNS", "200"),
            ("TZ", "UTC"),
            ("LANG", "C.UTF-8"),
        ]);
        // Whoever leaves the machine does it by https, and so comes to us. NODE_USE_ENV_PROXY: Node.js looks only then.
        let outside = format!("http://{}", self.installation.outside);
        command.envs([
            ("HTTPS_PROXY", outside.as_str()),
            ("https_proxy", &outside),
            ("NODE_USE_ENV_PROXY", "1"),
        ]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(self.client.environment.iter().map(|(name, value)| (name, self.filled(value))));
        command
    }

    /// Puts places and the token into a word.
    fn filled(&self, word: &str) -> String {
        let authority = self.stage.authority();
        word.replace("{origin}", &format!("http://{authority}"))
            .replace("{authority}", &authority)
            .replace("{clients}", &self.installation.clients.to_string_lossy())
            .replace("{here}", &here().to_string_lossy())
            .replace("{token}", OWNER_TOKEN)
    }

    /// Takes out of what a command said what must differ between two runs, and nothing else.
    fn tidied(&self, outcome: Outcome, folder: &Path) -> Outcome {
        let tidy = |text: &str| {
            // Where the client was pointed at, and where links to pages for people lead, which are nobody's to rewrite:
            // the sandbox's own address there, sentry.io's in life. Ports differ with every run.
            let authorities = self.stage.authorities();
            let text = authorities.iter().fold(text.to_owned(), |text, one| text.replace(one, "SENTRY"));
            // Folders are named after the side.
            let text = text.replace(&*folder.to_string_lossy(), "HOME");
            // Log lines start with the time of day.
            without_footer(&without_present(&text))
        };
        Outcome { end: outcome.end, output: tidy(&outcome.output), errors: tidy(&outcome.errors) }
    }
}

/// Makes a folder with nothing in it.
fn empty(folder: &Path) {
    // There is none before the first run.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
}

/// Returns a text without the last lines in which Sentry's newer command line says that it has not asked at all. The proxy
/// tells it to come back each time (`cache.downstream = "revalidate"`), so there it has asked, and says nothing.
fn without_footer(text: &str) -> String {
    let footer = text.rfind("\ncached · ").filter(|_| text.trim_end().ends_with("use -f to refresh"));
    footer.and_then(|start| text.get(..start)).unwrap_or(text).to_owned()
}

/// Returns a text without its moments that are not in the sandbox's calendar, as in `2026-11-28T05:03:46.082Z`: those are
/// a client's own clock. What the sandbox has happened in 2023.
fn without_present(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = moment(rest).filter(|_| !rest.starts_with("2023-"));
        tidy.push_str(if length.is_some() {
            "NOW"
        } else {
            rest.get(..first.len_utf8()).unwrap_or_default()
        });
        rest = rest.get(length.unwrap_or(first.len_utf8())..).unwrap_or_default();
    }
    tidy
}

/// Returns the length of the moment that a text starts with, down to fractions of a second, if it starts with one.
fn moment(text: &str) -> Option<usize> {
    const FORM: &[u8] = b"0000-00-00 00:00:00";
    let is_fitting = |(form, found): (&u8, u8)| match form {
        b'0' => found.is_ascii_digit(),
        b' ' => found == b'T' || found == b' ',
        other => found == *other,
    };
    let is_moment = FORM.len() <= text.len() && FORM.iter().zip(text.bytes()).all(is_fitting);
    let fraction = || text.bytes().skip(FORM.len()).take_while(|byte| *byte == b'.' || byte.is_ascii_digit());
    is_moment.then(|| FORM.len() + fraction().count())
}

/// Runs a command to its end, or kills it.
fn bounded(command: &mut Command, folder: &Path) -> Outcome {
    // Files, not pipes: nobody has to read them for the command to go on.
    let (output, errors) = (folder.with_extension("stdout"), folder.with_extension("stderr"));
    command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let end = wait(&mut child).map_or_else(|| format!("still running after {LIMIT:?}"), end_of);
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Outcome { end, output: text(&output), errors: text(&errors) }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let watch = Stopwatch::start();
    while watch.read() < LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(GLANCE);
    }
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    let _ = child.wait();
    None
}

fn end_of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "neither exit nor signal".to_owned(),
    }
}
