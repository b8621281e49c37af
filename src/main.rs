//! The front door: sets up what is process-wide, then does what the command line says.

use std::process::ExitCode;
use std::{env, io};

use sentrybox::cli::{self, Streams};
use sentrybox::logging;

/// Gives memory back to the system while the worker threads live on, which the others do not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tune_allocator();
    logging::install_panic_hook();
    // Fails only where one is installed already, which serves as well.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let streams = Streams { input: &mut io::stdin(), output: &mut io::stdout(), errors: &mut io::stderr() };
    cli::execute(env::args_os(), env::vars_os().collect(), streams).into()
}

/// Makes freed pages go back within a second, on a thread of jemalloc's own. The number of arenas is set at build time
/// (`.cargo/config.toml`); what an operator sets in `_RJEM_MALLOC_CONF` stands.
fn tune_allocator() {
    use tikv_jemalloc_ctl::{Access, AsName, background_thread};

    if env::var_os("_RJEM_MALLOC_CONF").is_some() {
        return;
    }
    // Arenas that are made later, then the one that is there already.
    let decays: [(&[u8], isize); 4] = [
        (b"arenas.dirty_decay_ms\0", 1000),
        (b"arenas.muzzy_decay_ms\0", 0),
        (b"arena.0.dirty_decay_ms\0", 1000),
        (b"arena.0.muzzy_decay_ms\0", 0),
    ];
    // A platform without a knob keeps its own behaviour: memory comes back later, nothing else changes.
    for (name, milliseconds) in decays {
        let _ = name.name().write(milliseconds);
    }
    let _ = background_thread::write(true);
}

#[cfg(test)]
mod tests {
    #[test]
    fn freed_memory_goes_back_within_a_second() {
        use tikv_jemalloc_ctl::{Access, AsName, background_thread};

        super::tune_allocator();
        let decay: isize = b"arenas.dirty_decay_ms\0".name().read().unwrap();
        let first: isize = b"arena.0.dirty_decay_ms\0".name().read().unwrap();
        assert_eq!((decay, first), (1000, 1000));
        if cfg!(target_os = "linux") {
            assert!(background_thread::read().unwrap());
        }
    }
}
