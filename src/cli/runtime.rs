//! The runtime, and the signals: those that end it, and the one that has the configuration read anew.
//!
//! Invariant: the second signal ends the process at once, whatever hangs.
//! Not here: what happens between the first signal and the end ([`crate::run`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::logging;
use crate::reload::ReloadSource;

/// Completes on the first signal to end.
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns a runtime for serving: a thread per core, or the calling one alone where there is only one.
///
/// # Errors
/// The system refuses.
pub fn for_serving() -> io::Result<Runtime> {
    match available_parallelism() {
        Ok(cores) if cores.get() > 1 => Builder::new_multi_thread().enable_all().build(),
        Ok(_) | Err(_) => single_threaded(),
    }
}

/// Returns a runtime on the calling thread.
///
/// # Errors
/// The system refuses.
pub fn single_threaded() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Listens for SIGTERM and SIGINT from now on. The second one ends the process with 1.
///
/// # Errors
/// The system refuses.
pub fn shutdown_signal() -> io::Result<Shutdown> {
    let mut signals = Signals::listen()?;
    let (sender, receiver) = oneshot::channel();
    // Owned by the process: it lives until there is nothing left to end.
    tokio::spawn(async move {
        signals.next().await;
        info!("shutting down; a second signal ends at once");
        if sender.send(()).is_err() {
            // The work has ended by itself.
            return;
        }
        signals.next().await;
        warn!("ended by a second signal");
        logging::finish();
        std::process::exit(1);
    });
    Ok(Box::pin(async move { drop(receiver.await) }))
}

/// Asks for a reload on each SIGHUP from now on.
///
/// # Errors
/// The system refuses.
pub fn reload_on_hang_up(reloads: ReloadSource) -> io::Result<()> {
    let mut hang_ups = signal(SignalKind::hangup())?;
    // Owned by the process, as above.
    tokio::spawn(async move {
        while hang_ups.recv().await.is_some() {
            reloads.request();
        }
    });
    Ok(())
}

/// The signals to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
