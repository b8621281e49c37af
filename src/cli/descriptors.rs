//! How many files the process may have open: each connection is one.
//!
//! Many systems start a process with 1024, and let it raise that by itself.
//!
//! Invariant: the limit is never lowered. Not here: what happens when there is none left
//! (`server::accept`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files that are open besides clients' and upstream's connections: log, listeners, timers, what is read anew, operators (64
/// connections at a time) and webhooks (1024 at a time, where they have a listener of their own).
const OTHERS: u64 = 1200;

/// Raises the limit as far as the process may, and says so if that is not enough.
pub fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where it cannot be raised, it stays as it is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // None is no limit at all.
    let limit = if raised.is_ok() { maximum } else { current };
    let wanted = wanted(config);
    if let Some(limit) = limit.filter(|limit| *limit < wanted) {
        tracing::warn!(limit, wanted, "too few files may be open for all connections that are allowed");
    }
}

/// Returns how many files may be open at a time at the most.
fn wanted(config: &Config) -> u64 {
    let connections = config.listen.max_connections.saturating_add(config.budget.max_concurrent);
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        raise_limit(&load::defaults());
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }

    #[test]
    fn every_connection_is_a_file_on_either_side() {
        let mut config = load::defaults();
        (config.listen.max_connections, config.budget.max_concurrent) = (1000, 100);
        assert_eq!(wanted(&config), 2300);
        config.listen.max_connections = usize::MAX;
        assert!(wanted(&config) > u64::from(u32::MAX));
    }
}
