//! Plays real clients of Sentry's API against the sandbox, each once directly and once through the built binary, and
//! compares what their users see.
//!
//! Each client ([`catalogue`] has them and their commands) gets a new, equal world on either side ([`stage`]). Reads are
//! run twice. For each command must hold: exit code, standard output and standard error are the same on both sides; it
//! did what it is for; no request went past the proxy; a read's second run asked upstream for nothing that is kept. For
//! each client: upstream was asked less often through the proxy. For all: nobody tried to leave the machine.
//!
//! Not here: installing (`run`); how long anything takes.
//!
//!     tests/clients/run                   all of them
//!     tests/clients/run --only NAME       one of them
//!     tests/clients/run --show            also prints what each command said, and asked
#![expect(clippy::unwrap_used, reason = "a step that fails ends the run, and says where")]
#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

use std::env;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::catalogue::{CLIENTS, Client};
use crate::play::{Installation, Play, Run};
use crate::report::{Played, Tally, Verdict, print_head};
use crate::stage::{Side, Stage};

mod catalogue;
mod play;
mod report;
mod stage;

/// What is to be done.
struct Plan {
    binary: PathBuf,
    clients: PathBuf,
    only: Option<String>,
    show: Show,
}

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Table,
    Everything,
}

impl Plan {
    /// Reads `BINARY CLIENTS [--only NAME] [--show]`.
    fn of_arguments() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [binary, clients, options @ ..] = arguments.as_slice() else {
            panic!("wants a release build and the folder of the clients; see tests/clients/run")
        };
        let mut plan = Self { binary: binary.into(), clients: clients.into(), only: None, show: Show::Table };
        let mut options = options.iter().map(String::as_str);
        while let Some(option) = options.next() {
            match option {
                "--show" => plan.show = Show::Everything,
                "--only" => {
                    plan.only = Some(options.next().expect("--only wants a client's name").to_owned());
                }
                other => panic!("unknown option {other}"),
            }
        }
        plan
    }

    fn is_played(&self, client: &Client) -> bool {
        self.only.as_ref().is_none_or(|name| name == client.name)
    }
}

fn main() -> ExitCode {
    let plan = Plan::of_arguments();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outside = Outside::watch();
    let homes = tempfile::tempdir().unwrap();
    let installation = Installation {
        binary: plan.binary.clone(),
        clients: plan.clients.clone(),
        homes: homes.path().to_owned(),
        outside: outside.address.clone(),
    };

    print_head();
    let mut tally = Tally::default();
    for client in CLIENTS.iter().filter(|client| plan.is_played(client)) {
        let played = play(client, &installation, runtime.handle());
        if plan.show == Show::Everything {
            played.iter().for_each(Played::print);
        }
        tally.judge(client, &played);
    }
    let strays = outside.strays();
    for stray in &strays {
        println!("tried to leave the machine: {stray}");
    }
    tally.note(Verdict::of(strays.len()));
    println!("{:<18} {:>14} {:>14}\n", "all", tally.direct, tally.proxied);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    // Somebody was played, unless a name was mistyped.
    if tally.failed == 0 && tally.direct > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a client on both sides at the same time.
fn play<'a>(client: &'a Client, installation: &Installation, runtime: &Handle) -> Vec<Played<'a>> {
    let side = |side: Side| -> Vec<Vec<Run>> {
        let log = installation.clients.join(format!("{}.log", client.file_name()));
        let stage = Stage::set(side, runtime, (&installation.binary, &log));
        let play = Play { client, side, installation, stage: &stage };
        let runs = client.steps.iter().map(|step| play.step(step)).collect();
        stage.strike();
        runs
    };
    let (direct, proxied) = thread::scope(|scope| {
        let direct = scope.spawn(|| side(Side::Direct));
        let proxied = side(Side::Proxied);
        (direct.join().unwrap(), proxied)
    });
    let runs = direct.into_iter().zip(proxied);
    client.steps.iter().zip(runs).map(|(step, (direct, proxied))| Played { step, direct, proxied }).collect()
}

/// Where whoever wants to leave the machine ends up: the proxy of its environment, which lets nobody through.
struct Outside {
    address: String,
    strays: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    fn watch() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let strays = Arc::new(Mutex::new(Vec::new()));
        let book = Arc::clone(&strays);
        // Ends with the process.
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut start = [0; 256];
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let length = stream.read(&mut start).unwrap_or_default();
                let said = String::from_utf8_lossy(start.get(..length).unwrap_or_default());
                book.lock().unwrap().push(said.lines().next().unwrap_or("a connection").to_owned());
            }
        });
        Self { address, strays }
    }

    fn strays(&self) -> Vec<String> {
        self.strays.lock().unwrap().clone()
    }
}
