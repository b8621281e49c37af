//! `sentrybox demo`: its guide, copied and pasted.

use std::io::{Write, stderr};
use std::process::Command;

use crate::end_to_end::until;
use crate::support::binary::{Binary, sentrybox};

/// Returns the commands of a guide: the lines that are indented by five, each with what it continues on.
fn commands(guide: &str) -> Vec<String> {
    let lines = guide.lines().filter_map(|line| line.strip_prefix("     "));
    let mut commands: Vec<String> = Vec::new();
    for line in lines {
        match commands.last_mut().filter(|command| command.ends_with('\\')) {
            Some(command) => {
                command.push('\n');
                command.push_str(line);
            }
            None => commands.push(line.to_owned()),
        }
    }
    commands
}

/// Runs a command as a shell would, and returns what it printed.
fn paste(command: &str) -> String {
    let output = Command::new("bash").arg("-c").arg(command).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_commands_work_as_printed_and_in_their_order() {
    let mut command = sentrybox();
    command.arg("demo");
    let mut demo = Binary::start(command);
    let (proxy, admin) = (format!("http://{}", demo.address), format!("http://{}", demo.admin));
    // It comes by another pipe than the line that says where the proxy listens.
    until(async || demo.output().contains("Stop with Ctrl-C")).await;
    let guide = demo.output();
    let commands = commands(&guide);
    assert!(guide.contains(&proxy) && guide.contains(&admin) && !guide.contains(":0/"), "{guide}");
    assert_eq!(commands.len(), 10, "{commands:?}");
    if Command::new("curl").arg("--version").output().is_err() {
        // Past the capture of tests' output.
        let _ = writeln!(stderr(), "no curl here: the commands of the demo's guide were not run");
        return;
    }

    let page = paste(&commands[0]);
    assert!(page.contains("cache-status: sentrybox; fwd=uri-miss"), "{page}");
    assert!(page.contains("x-sentry-rate-limit-remaining: "), "{page}");
    let page = paste(&commands[1]);
    assert!(page.contains("cache-status: sentrybox; hit") && page.contains("\nage: "), "{page}");
    assert!(
        page.contains(&format!("<{proxy}/api/0/organizations/?&cursor=1672711200000:0:0>; rel=\"next\""))
    );
    let page = paste(&commands[2]);
    assert!(page.contains("rel=\"next\"; results=\"false\""), "{page}");
    let others = paste(&commands[3]);
    assert!(others.contains("cache-status: sentrybox; fwd=uri-miss"), "{others}");
    assert_eq!(paste(&commands[4]), "200\n");
    assert_eq!(paste(&commands[5]), "Renamed in the demo\n");
    assert_eq!(paste(&commands[6]), "200 ".repeat(60));
    let metrics = paste(&commands[7]);
    assert!(metrics.contains("handling=\"reuse\"") && metrics.contains("reason=\"uri-miss\""), "{metrics}");
    assert!(paste(&commands[8]).starts_with(r#"{"purged":"everything","mode":"soft""#));
    assert!(paste(&commands[9]).contains("cache-status: sentrybox; fwd="));

    demo.terminate();
    assert_eq!(demo.wait().code(), Some(0));
    let said = demo.output();
    let log: String = said.lines().filter(|line| line.starts_with('{')).collect();
    assert!(log.contains("request served") && !log.contains("sntryu_"), "{log}");
}
