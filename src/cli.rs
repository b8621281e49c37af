//! The command line: what `sentrybox` can be asked to do, and with which exit code it ends.
//!
//! [`execute`] is the whole program but for the allocator: arguments, environment and streams are handed in, so that
//! tests need no process. Flags become the strongest layer of the configuration; their values are judged there,
//! together with everything else.
//!
//! Invariants: 0 is success, 64 a bad command line or configuration, 1 any other failure; a closed standard output is
//! an end, not a failure; no secret is printed.
//! Not here: serving ([`crate::run`]), the sandbox, and what the options mean (`config/default.toml`).

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::Controls;
use crate::RunError;
use crate::assembly::{self, AssemblyError};
use crate::cli::explain::{ExplainArguments, ExplainError};
use crate::cli::fingerprint::FingerprintError;
use crate::cli::healthcheck::HealthcheckError;
use crate::cli::purge::{PurgeArguments, PurgeError};
use crate::config::load::{Flag, Loaded, Sources, load};
use crate::config::{Config, Problem};
use crate::logging::{self, LoggingError};
use crate::reload::ReloadSource;
use crate::routes;
use crate::sandbox::demo::{self, DemoError};
use crate::upstream::environment::ProxyEnvironment;

pub mod descriptors;
pub mod explain;
pub mod fingerprint;
pub mod healthcheck;
pub mod operator;
pub mod purge;
pub mod reloading;
pub mod runtime;

/// Examples and pointers below `--help`.
const EXAMPLES: &str = "\
Try it:
  sentrybox demo          a small Sentry look-alike and the proxy before it
  sentrybox               serve 127.0.0.1:9000, forward to https://sentry.io
  SENTRY_URL=http://127.0.0.1:9000 sentry-cli organizations list
  curl -i -H \"Authorization: Bearer $TOKEN\" \\
      http://127.0.0.1:9000/api/0/organizations/
                          twice: the second answer has Age, and a hit in
                          Cache-Status

The five settings that people change:
  where it listens        --listen        SENTRYBOX_LISTEN__ADDRESS
  which Sentry it asks    --region        SENTRYBOX_UPSTREAM__REGION
                          --upstream      SENTRYBOX_UPSTREAM__URL
  its own public name     --public-url    SENTRYBOX_PUBLIC_URL
  memory for the cache                    SENTRYBOX_CACHE__MAX_BYTES
  the key of the cache                    SENTRYBOX_SECRET (or _FILE)

Configuration: built-in defaults < --config FILE < SENTRYBOX_ variables < flags.
  `sentrybox check` prints what is in force, or everything that is wrong.
  Every option is documented in config/default.toml of the repository;
  config/sidecar.toml and config/shared.toml are examples; README.md tells more.

Exit codes: 0 success, 64 bad command line or configuration, 1 failure.";

/// A caching reverse proxy that stands between your tools and Sentry's REST API.
///
/// Point a client at it instead of at sentry.io and change nothing else.
#[derive(Debug, Parser)]
#[command(name = "sentrybox", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
struct Settings {
    /// Configuration file in TOML [env: SENTRYBOX_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to serve clients on [default: 127.0.0.1:9000]
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and port for the dashboard, health, metrics, the log's level, purging and explaining [default: 127.0.0.1:9001]
    #[arg(long, global = true, value_name = "ADDRESS")]
    admin: Option<String>,
    /// URL of the Sentry server to forward to, instead of a region
    #[arg(long, global = true, value_name = "URL", conflicts_with = "region")]
    upstream: Option<String>,
    /// Region of Sentry to forward to: global, us, de, or a configured one [default: global]
    #[arg(long, global = true, value_name = "NAME")]
    region: Option<String>,
    /// Where clients reach this proxy, as scheme://authority [default: as each request came in]
    #[arg(long, global = true, value_name = "URL")]
    public_url: Option<String>,
}

impl Settings {
    fn sources(self, environment: Vec<(OsString, OsString)>) -> Sources {
        // A region that is asked for here wins over a URL that stands in a weaker source.
        let no_url = self.region.as_ref().map(|_| String::new());
        let flags = [
            ("--listen", "listen.address", self.listen),
            ("--admin", "admin.address", self.admin),
            ("--region", "upstream.url", no_url),
            ("--upstream", "upstream.url", self.upstream),
            ("--region", "upstream.region", self.region),
            ("--public-url", "public_url", self.public_url),
        ];
        let flag = |(name, key, value): (_, _, Option<String>)| Some(Flag { name, key, value: value? });
        Sources { file: self.config, environment, flags: flags.into_iter().filter_map(flag).collect() }
    }
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; a second one ends at once (this is the default)
    Serve,
    /// Validate the configuration and print the effective one, secrets redacted
    Check,
    /// Start a small Sentry look-alike and the proxy before it, and print commands to try
    Demo,
    /// Print the fingerprint of a token, as logs, the ledger and budget.aliases know it; needs the configured secret
    Fingerprint {
        /// Read the token, or a whole Authorization value, from standard input
        #[arg(long, required = true)]
        token_stdin: bool,
    },
    /// Mark what the running proxy has stored stale, or drop it; asks the configured admin listener
    Purge(PurgeArguments),
    /// Tell what would become of a request, without sending it, and why; asks the configured admin listener
    Explain(ExplainArguments),
    /// Ask the admin listener whether the process lives (for containers without a shell)
    Healthcheck,
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to.
    Success,
    /// It could not.
    Failure,
    /// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Usage => Self::from(64),
        }
    }
}

/// The streams of the process.
pub struct Streams<'a> {
    /// Where a token is read from.
    pub input: &'a mut dyn Read,
    /// Where answers go.
    pub output: &'a mut dyn Write,
    /// Where complaints go.
    pub errors: &'a mut dyn Write,
}

impl fmt::Debug for Streams<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Streams")
    }
}

/// Why a command did not succeed.
#[derive(Debug, Error)]
enum CommandError {
    #[error("{}", listed(.0))]
    Configuration(Vec<Problem>),
    #[error("could not print the configuration")]
    Unprintable(#[from] toml::ser::Error),
    #[error("could not write to standard output")]
    Output(#[from] io::Error),
    #[error("could not start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    #[error(transparent)]
    Healthcheck(#[from] HealthcheckError),
    #[error(transparent)]
    Purge(#[from] PurgeError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
}

impl CommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_)
            | Self::Assembly(_)
            | Self::Run(RunError::Assembly(_))
            | Self::Demo(DemoError::Proxy(RunError::Assembly(_))) => Exit::Usage,
            Self::Fingerprint(error) if error.is_usage() => Exit::Usage,
            Self::Purge(error) if error.is_usage() => Exit::Usage,
            Self::Explain(error) if error.is_usage() => Exit::Usage,
            // Whoever reads us has enough, as in `sentrybox check | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Unprintable(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Logging(_)
            | Self::Fingerprint(_)
            | Self::Healthcheck(_)
            | Self::Purge(_)
            | Self::Explain(_)
            | Self::Demo(_)
            | Self::Run(RunError::Listen { .. }) => Exit::Failure,
        }
    }
}

/// Does what the arguments ask for. `arguments` begins with the program's name.
pub fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
    streams: Streams<'_>,
) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(refusal) => return refuse(&refusal, streams),
    };
    let sources = arguments.settings.sources(environment);
    let Err(error) =
        perform(arguments.command.unwrap_or(Command::Serve), &sources, (streams.input, streams.output))
    else {
        return Exit::Success;
    };
    let exit = error.exit();
    if exit != Exit::Success {
        // Nothing is left to tell it to if this fails.
        drop(writeln!(streams.errors, "sentrybox: {}", chain(&error)));
    }
    exit
}

/// Prints what clap has to say: help and version are an answer, the rest a complaint.
fn refuse(refusal: &clap::Error, streams: Streams<'_>) -> Exit {
    let (stream, exit) =
        if refusal.use_stderr() { (streams.errors, Exit::Usage) } else { (streams.output, Exit::Success) };
    drop(write!(stream, "{refusal}"));
    drop(stream.flush());
    exit
}

fn perform(
    command: Command,
    sources: &Sources,
    (input, output): (&mut dyn Read, &mut dyn Write),
) -> Result<(), CommandError> {
    // Looked at before it is read: what changes in between is seen later.
    let reloads = reloading::source(sources);
    let config = configuration(sources)?;
    match command {
        Command::Serve => serve(config, sources, reloads),
        Command::Check => {
            // Whatever only shows when the rooms are put together: root certificates of both sides, egress proxies.
            assembly::proxy(&config, &egress(&sources.environment))?;
            assembly::certificates(&config.listen)?;
            check(&config, output)
        }
        Command::Demo => demo(config),
        Command::Fingerprint { token_stdin: _ } => {
            let fingerprint = fingerprint::of_token(&config.secret, input)?;
            Ok(writeln!(output, "{fingerprint}").and_then(|()| output.flush())?)
        }
        Command::Purge(arguments) => {
            let order = purge::order(&arguments, &config, input)?;
            let runtime = runtime::single_threaded().map_err(CommandError::Runtime)?;
            let report = runtime.block_on(purge::send(&config.admin, order))?;
            Ok(writeln!(output, "{report}").and_then(|()| output.flush())?)
        }
        Command::Explain(arguments) => {
            let question = explain::question(&arguments, &config, input)?;
            let runtime = runtime::single_threaded().map_err(CommandError::Runtime)?;
            let explanation = runtime.block_on(explain::ask(&config.admin, question))?;
            Ok(writeln!(output, "{explanation}").and_then(|()| output.flush())?)
        }
        Command::Healthcheck => {
            let runtime = runtime::single_threaded().map_err(CommandError::Runtime)?;
            Ok(runtime.block_on(healthcheck::ask(config.admin.address))?)
        }
    }
}

/// Reads which proxies lead out of here.
fn egress(environment: &[(OsString, OsString)]) -> ProxyEnvironment {
    ProxyEnvironment::read(&|name| {
        let (_, value) = environment.iter().find(|(key, _)| key == name)?;
        value.to_str().map(str::to_owned)
    })
}

/// Loads the configuration and lets the rooms look at their own sections.
fn configuration(sources: &Sources) -> Result<Config, CommandError> {
    let loaded = load(sources).map_err(CommandError::Configuration)?;
    let problems = loaded.locate(deeper_problems(&loaded));
    if problems.is_empty() { Ok(loaded.config) } else { Err(CommandError::Configuration(problems)) }
}

/// Returns what only the rooms themselves can find wrong.
fn deeper_problems(loaded: &Loaded) -> Vec<Problem> {
    routes::compile(&loaded.config.cache).err().unwrap_or_default()
}

fn check(config: &Config, output: &mut dyn Write) -> Result<(), CommandError> {
    let text = toml::to_string(config)?;
    writeln!(output, "# The effective configuration of sentrybox {}; secrets are redacted.", version())?;
    write!(output, "{text}")?;
    Ok(output.flush()?)
}

fn serve(config: Config, sources: &Sources, reloads: ReloadSource) -> Result<(), CommandError> {
    let controls = Controls { log: logging::init(&config.log)?, reloads };
    descriptors::raise_limit(&config);
    until_signal(async |shutdown| {
        runtime::reload_on_hang_up(controls.reloads.clone()).map_err(CommandError::Runtime)?;
        Ok(crate::run(config, &egress(&sources.environment), controls, shutdown).await?)
    })
}

fn demo(config: Config) -> Result<(), CommandError> {
    if !config.upstream.url.is_empty() {
        return Err(CommandError::Configuration(vec![Problem {
            source: String::new(),
            key: "upstream.url".to_owned(),
            expected: "expected nothing, because the demo asks a look-alike of its own".to_owned(),
        }]));
    }
    let log = logging::init(&config.log)?;
    until_signal(async |shutdown| Ok(demo::demo(config, log, shutdown).await?))
}

/// Runs `work` on a runtime of its own; its argument completes on the first signal to end.
fn until_signal(
    work: impl AsyncFnOnce(runtime::Shutdown) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let runtime = runtime::for_serving().map_err(CommandError::Runtime)?;
    let result = runtime.block_on(async {
        let shutdown = runtime::shutdown_signal().map_err(CommandError::Runtime)?;
        work(shutdown).await
    });
    // A look-up in the resolver's thread may hang; it must not keep the process from ending.
    runtime.shutdown_background();
    logging::finish();
    result
}

/// Returns the version that is running.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Returns the problems, one per line, below their number.
fn listed(problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    problems.iter().fold(format!("{count} in the configuration"), |mut text, problem| {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
        text
    })
}

/// Returns the error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const SECRET: (&str, &str) = ("SENTRYBOX_SECRET", "a secret of at least thirty-two characters");

    /// What a run of the program left behind.
    struct Outcome {
        exit: Exit,
        output: String,
        errors: String,
    }

    fn run(arguments: &[&str], environment: &[(&str, &str)], mut input: &[u8]) -> Outcome {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let arguments = ["sentrybox"].iter().chain(arguments).map(OsString::from);
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let streams = Streams { input: &mut input, output: &mut output, errors: &mut errors };
        let exit = execute(arguments, environment, streams);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { exit, output: text(output), errors: text(errors) }
    }

    /// Refuses everything, as a pipe does whose reader is gone.
    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_answers() {
        for arguments in [["--help"], ["--version"], ["help"]] {
            let outcome = run(&arguments, &[], b"");
            assert_eq!((outcome.exit, outcome.errors.as_str()), (Exit::Success, ""), "{arguments:?}");
            assert!(outcome.output.contains("sentrybox"), "{}", outcome.output);
        }
        assert!(run(&["--help"], &[], b"").output.contains("SENTRYBOX_CACHE__MAX_BYTES"));
    }

    #[test]
    fn a_bad_command_line_ends_with_64() {
        for arguments in [
            &["dance"][..],
            &["--what"],
            &["fingerprint"],
            &["check", "--region", "us", "--upstream", "https://sentry.example"],
        ] {
            let outcome = run(arguments, &[], b"");
            assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Usage, ""), "{arguments:?}");
            assert!(outcome.errors.contains("Usage:"), "{}", outcome.errors);
        }
    }

    #[test]
    fn check_prints_the_effective_configuration_without_secrets() {
        let outcome = run(&["check", "--region", "us"], &[SECRET], b"");
        assert_eq!((outcome.exit, outcome.errors.as_str()), (Exit::Success, ""));
        assert!(
            outcome.output.contains("region = \"us\"") && outcome.output.contains("secret = \"[redacted]\"")
        );
        assert!(!outcome.output.contains(SECRET.1));
        assert!(toml::from_str::<toml::Table>(&outcome.output).is_ok());
    }

    #[test]
    fn check_reports_every_problem_and_ends_with_64() {
        let environment = [("SENTRYBOX_CACHE__SETTLE", "soon"), ("SENTRYBOX_CASHE", "1")];
        let outcome = run(&["--listen", "here", "check"], &environment, b"");
        assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Usage, ""));
        assert!(
            outcome.errors.starts_with("sentrybox: 3 problems in the configuration\n"),
            "{}",
            outcome.errors
        );
        for part in
            ["SENTRYBOX_CACHE__SETTLE: cache.settle: expected a duration", "SENTRYBOX_CASHE", "--listen"]
        {
            assert!(outcome.errors.contains(part), "{}", outcome.errors);
        }
    }

    #[test]
    fn a_region_on_the_command_line_wins_over_a_url_elsewhere() {
        let environment = [("SENTRYBOX_UPSTREAM__URL", "https://sentry.example")];
        assert!(run(&["check"], &environment, b"").output.contains("\nurl = \"https://sentry.example\"\n"));
        assert!(run(&["check", "--region", "de"], &environment, b"").output.contains("\nurl = \"\"\n"));
    }

    #[test]
    fn a_closed_standard_output_is_an_end_and_a_full_disk_a_failure() {
        for (kind, exit) in
            [(io::ErrorKind::BrokenPipe, Exit::Success), (io::ErrorKind::StorageFull, Exit::Failure)]
        {
            let (mut output, mut errors) = (Closed(kind), Vec::new());
            let streams = Streams { input: &mut io::empty(), output: &mut output, errors: &mut errors };
            let arguments = ["sentrybox", "check"].map(OsString::from);
            assert_eq!(execute(arguments, Vec::new(), streams), exit, "{kind}");
            assert_eq!(errors.is_empty(), exit == Exit::Success);
        }
    }

    #[test]
    fn a_fingerprint_is_the_same_for_a_token_and_its_authorization_value() {
        let print = |input: &str| run(&["fingerprint", "--token-stdin"], &[SECRET], input.as_bytes());
        let bare = print("sntryu_canary\n");
        assert_eq!(print("tok").output, print("Authorization: bearer tok\n").output);
        assert_eq!((bare.exit, bare.output.trim().len()), (Exit::Success, 16));
        assert_eq!(print("bearer  sntryu_canary").output, bare.output);
        assert_ne!(print("Basic sntryu_canary").output, bare.output);
    }

    #[test]
    fn a_fingerprint_needs_a_secret_and_a_token() {
        let without_secret = run(&["fingerprint", "--token-stdin"], &[], b"sntryu_canary");
        let without_token = run(&["fingerprint", "--token-stdin"], &[SECRET], b" \n");
        let broken = run(&["fingerprint", "--token-stdin"], &[SECRET], b"sntryu_canary\x01");
        for outcome in [without_secret, without_token, broken] {
            assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Usage, ""));
            assert!(!outcome.errors.is_empty() && !outcome.errors.contains("canary"), "{}", outcome.errors);
        }
    }

    #[test]
    fn a_healthcheck_of_nothing_fails_with_a_reason_in_one_line() {
        let outcome = run(&["healthcheck", "--admin", "127.0.0.1:0"], &[], b"");
        assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Failure, ""));
        assert_eq!(outcome.errors.lines().count(), 1, "{}", outcome.errors);
    }

    #[test]
    fn the_demo_takes_no_upstream_but_its_own() {
        let outcome = run(&["--upstream", "http://127.0.0.1:1", "demo"], &[], b"");
        assert_eq!(outcome.exit, Exit::Usage);
        assert!(outcome.errors.contains("upstream.url"), "{}", outcome.errors);
    }
}
