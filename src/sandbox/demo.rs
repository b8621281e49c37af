//! `sentrybox demo`: the sandbox, the proxy in front of it, and a guide of what to try.
//!
//! Invariant: the guide's commands work as printed, in their order, by copy and paste.
//! Not here: the proxy (`run`), the command line (`cli`).

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::Controls;
use crate::Prepared;
use crate::RunError;
use crate::config::{Config, Routing};
use crate::logging::control::LogControl;
use crate::reload::ReloadSource;
use crate::sandbox::people::{OTHER_TOKEN, OWNER_TOKEN};
use crate::sandbox::{Sandbox, SandboxOptions};
use crate::upstream::environment::ProxyEnvironment;

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The sandbox could not listen.
    #[error("could not start the sandbox")]
    Sandbox(#[source] io::Error),
    /// The guide could not be printed.
    #[error("could not print the guide")]
    Guide(#[source] io::Error),
    /// The proxy could not run.
    #[error(transparent)]
    Proxy(#[from] RunError),
}

/// Runs the sandbox, and the proxy in front of it, until `shutdown` ends; prints the guide once both listen.
pub async fn demo(
    mut config: Config,
    log: LogControl,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DemoError> {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.map_err(DemoError::Sandbox)?;
    config.upstream.url = sandbox.origin();
    // Nothing leaves the machine, whatever else is configured.
    config.upstream.control.clear();
    config.traces.endpoint.clear();
    config.upstream.routing = Routing::Pinned;
    let prepared = Prepared::new(config, &ProxyEnvironment::default()).await?;
    let (proxy, admin) = prepared.addresses().map_err(DemoError::Guide)?;
    print(&mut io::stdout().lock(), &demo_guide(proxy, admin, &sandbox)).map_err(DemoError::Guide)?;
    // Its configuration is no file's: there is nothing to read anew.
    let controls = Controls { log, reloads: ReloadSource::none() };
    prepared.run(controls, shutdown).await;
    sandbox.shutdown().await;
    Ok(())
}

fn print(output: &mut dyn Write, guide: &str) -> io::Result<()> {
    output.write_all(guide.as_bytes())?;
    output.flush()
}

/// Returns what to try while the demo runs, and what to look for in each answer.
pub fn demo_guide(proxy: SocketAddr, admin: SocketAddr, sandbox: &Sandbox) -> String {
    guide(&format!("http://{proxy}"), &format!("http://{admin}"), &sandbox.origin())
}

fn guide(proxy: &str, admin: &str, sandbox: &str) -> String {
    let list = format!("{proxy}/api/0/organizations/");
    let owner = format!("-H 'Authorization: Bearer {OWNER_TOKEN}'");
    let other = format!("-H 'Authorization: Bearer {OTHER_TOKEN}'");
    format!(
        "sentrybox demo: a look-alike of Sentry at {sandbox} (150 organizations, 40 requests per second,
25 at once), and the proxy in front of it at {proxy}. Try these, in order, in another terminal:

1. The list of organizations: nothing is stored yet, so it is forwarded.
     curl -sS -o /dev/null -D - {owner} {list}
   Look for: Cache-Status with fwd=uri-miss; X-Sentry-Rate-Limit-Remaining counts down.

2. The same again: answered from the cache, without asking upstream.
     curl -sS -o /dev/null -D - {owner} {list}
   Look for: Cache-Status with hit, and Age. rel=\"next\" in Link names {proxy}, not sentry.io.

3. Follow next to the last page: it never leaves the proxy.
     curl -sS -o /dev/null -D - {owner} '{list}?&cursor=1672711200000:0:0'
   Look for: rel=\"next\" with results=\"false\".

4. Another token, the same URL: its own answer, never somebody else's.
     curl -sS -D - {other} {list} | cut -c 1-300
   Look for: Cache-Status with fwd=uri-miss again, and 3 organizations instead of 100.

5. A write, and the read after it by the other token.
     curl -sS -o /dev/null -w '%{{http_code}}\\n' -X PUT {owner} \\
       -H 'Content-Type: application/json' -d '{{\"name\":\"Renamed in the demo\"}}' {list}org-002/
     curl -sS {other} {list} | grep -o 'Renamed in the demo'
   Look for: the new name at once, although the list was stored a moment ago.

6. Sixty readers at once: one request upstream, and no 429.
     for i in $(seq 60); do curl -sS -o /dev/null -w '%{{http_code}} ' {owner} {list}org-001/projects/ & done; wait
   Look for: 200 sixty times. Straight at {sandbox} the same loop is answered 429 before long.

7. What it did, in numbers, and as a page.
     curl -sS {admin}/metrics | grep -v '^#'
   Look for: reuses and forwards, by reason. In a browser, {admin}/ draws them, and goes on by itself.

8. Everything that is stored marked stale, then the list once more.
     curl -sS -X POST {admin}/purge
     curl -sS -o /dev/null -D - {owner} {list}
   Look for: Cache-Status with fwd again.

Stop with Ctrl-C.

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_all_three_addresses_and_has_no_hole_left() {
        let text = guide("http://127.0.0.1:9000", "http://127.0.0.1:9001", "http://127.0.0.1:4711");
        for part in ["http://127.0.0.1:9000/api/0/", "http://127.0.0.1:9001/metrics", "http://127.0.0.1:4711"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(text.contains("-d '{\"name\":") && text.contains("%{http_code}"), "{text}");
        assert!(text.lines().filter(|line| line.starts_with("     ")).count() >= 8);
    }

    #[test]
    fn the_guide_is_printed_whole() {
        let mut output = Vec::new();
        print(&mut output, "guide").unwrap();
        assert_eq!(output, b"guide");
    }
}
