//! The commands, and how each of them ends.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::end_to_end::{LIST, OTHER, OWNER, Stage};
use crate::support::binary::sentrybox;
use crate::support::http::Answer;

const SECRET: &str = "a secret of at least thirty-two characters";

/// Runs a command to its end, with some standard input.
fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_binary_tells_its_version() {
    let output = run(sentrybox().arg("--version"), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("sentrybox "), "{output:?}");
}

#[test]
fn check_reports_every_mistake_with_its_file_its_key_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentrybox.toml");
    let mistakes = "[cache]\nmax_bytes = \"plenty\"\n\n[cache.classes.slow]\nfresh_for = 5\n\n[listen]\nadress = \"127.0.0.1:1\"\n";
    std::fs::write(&file, mistakes).unwrap();
    let output = run(sentrybox().arg("--config").arg(&file).arg("check"), "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""));
    let errors = text(&output.stderr);
    assert!(errors.starts_with("sentrybox: 3 problems in the configuration\n"), "{errors}");
    for (key, expected) in [
        ("cache.max_bytes", "expected a size"),
        ("cache.classes.slow.fresh_for", "expected a duration"),
        ("listen.adress", "did you mean listen.address?"),
    ] {
        let line = errors.lines().find(|line| line.contains(&format!(" {key}: ")));
        let line = line.unwrap_or_else(|| panic!("nothing about {key}: {errors}"));
        assert!(line.contains(file.to_str().unwrap()) && line.contains(expected), "{line}");
    }
}

#[test]
fn check_prints_what_is_in_force() {
    let output = run(sentrybox().args(["check", "--region", "de"]).env("SENTRYBOX_SECRET", SECRET), "");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let printed = text(&output.stdout);
    assert!(printed.contains("region = \"de\"") && !printed.contains(SECRET), "{printed}");
}

#[test]
fn bad_usage_and_bad_configuration_end_with_64() {
    for (arguments, environment) in [
        (&["dance"][..], ("SENTRYBOX_SECRET", "")),
        (&["--region", "us", "--upstream", "https://sentry.example"], ("SENTRYBOX_SECRET", "")),
        (&[], ("SENTRYBOX_SECRET", "short")),
        (&["demo"], ("SENTRYBOX_LOG__LEVEL", "loud")),
        (&["serve"], ("SENTRYBOX_UPSTREAM__CA_FILE", "/nowhere/at/all.pem")),
        (&["demo"], ("SENTRYBOX_UPSTREAM__CA_FILE", "/nowhere/at/all.pem")),
        (&["--config", "/nowhere/at/all.toml"], ("SENTRYBOX_SECRET", "")),
    ] {
        let output = run(sentrybox().args(arguments).env(environment.0, environment.1), "");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{arguments:?} {output:?}");
        assert!(!output.stderr.is_empty() && !text(&output.stderr).contains("short\""), "{output:?}");
    }
}

#[test]
fn a_port_that_is_taken_ends_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, key) in [
        (["--listen", &address, "--admin", "127.0.0.1:0"], "listen.address"),
        (["--admin", &address, "--listen", "127.0.0.1:0"], "admin.address"),
    ] {
        for command in [&["serve"][..], &["demo"]] {
            let output = run(sentrybox().args(arguments).args(command), "");
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{output:?}");
            let errors = text(&output.stderr);
            assert!(errors.contains(&address) && errors.contains(key), "{errors}");
        }
    }
}

#[test]
fn a_fingerprint_says_nothing_of_its_token() {
    let print = |input: &str| {
        let mut command = sentrybox();
        run(command.args(["fingerprint", "--token-stdin"]).env("SENTRYBOX_SECRET", SECRET), input)
    };
    let output = print("sntryu_demo_owner\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let fingerprint = text(&output.stdout).trim();
    assert!(fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(print("Bearer sntryu_demo_owner").stdout, output.stdout);
    assert_ne!(print("sntryu_demo_other").stdout, output.stdout);
    let output = run(sentrybox().args(["fingerprint", "--token-stdin"]), "sntryu_demo_owner");
    assert_eq!(output.status.code(), Some(64), "without a secret there is none: {output:?}");
    assert!(!text(&output.stderr).contains("sntryu_"));
}

/// Returns whether what an answer tells came from the store.
fn is_hit(answer: &Answer) -> bool {
    answer.field("cache-status").contains("hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_an_organization_is_followed_by_a_forward_for_every_credential_and_for_no_other_organization()
 {
    let stage = Stage::set(&[("SENTRYBOX_ADMIN__TOKEN", "a-token-of-the-operators")]).await;
    let admin = stage.binary.admin.to_string();
    let purge = |arguments: &[&str], input: &str| {
        let mut command = sentrybox();
        command.arg("purge").args(arguments).args(["--admin", &admin]);
        run(command.env("SENTRYBOX_ADMIN__TOKEN", "a-token-of-the-operators"), input)
    };
    let mine = ["/api/0/organizations/org-002/projects/", "/api/0/organizations/org-002/"];
    let theirs = "/api/0/organizations/org-003/projects/";
    for who in [OWNER, OTHER] {
        for target in [mine[0], mine[1], theirs] {
            stage.get(target, who).await;
            assert!(is_hit(&stage.get(target, who).await), "{target}");
        }
    }
    let output = purge(&["--organization", "org-002"], "");
    let report = r#"{"purged":{"organization":"org-002"},"mode":"soft","responses":4}"#;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), format!("{report}\n").as_str()),
        "{output:?}"
    );
    for who in [OWNER, OTHER] {
        let before = stage.sandbox.requests_total();
        assert!(is_hit(&stage.get(theirs, who).await));
        for target in mine {
            let answer = stage.get(target, who).await;
            assert!(answer.field("cache-status").contains("fwd=stale"), "{answer:?}");
            assert!(is_hit(&stage.get(target, who).await));
        }
        assert_eq!(stage.sandbox.requests_total() - before, 2);
    }
    let output = purge(&["--token-stdin", "--hard"], "sntryu_demo_other\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains(r#""mode":"hard","responses":3}"#), "{output:?}");
    assert!(!is_hit(&stage.get(theirs, OTHER).await) && is_hit(&stage.get(theirs, OWNER).await));
    let output = purge(&["--tag", "nonsense"], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{output:?}");
    assert!(text(&output.stderr).contains("`tag` wants project:ORGANIZATION/PROJECT"), "{output:?}");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_what_then_happens_and_sends_nothing() {
    let stage = Stage::set(&[("SENTRYBOX_ADMIN__TOKEN", "a-token-of-the-operators")]).await;
    let admin = stage.binary.admin.to_string();
    let explain = |arguments: &[&str], input: &str| {
        let mut command = sentrybox();
        command.arg("explain").args(arguments).args(["--admin", &admin]);
        run(command.env("SENTRYBOX_ADMIN__TOKEN", "a-token-of-the-operators"), input)
    };
    let target = "/api/0/organizations/org-002/projects/";
    let url = format!("{}{target}", stage.base());
    for (handling, is_stored) in [("forward", false), ("reuse", true)] {
        let before = stage.sandbox.requests_total();
        let output = explain(&[&url, "--token-stdin"], "sntryu_demo_owner\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{output:?}");
        let screen = text(&output.stdout);
        assert!(screen.starts_with(&format!("GET {target}\n")), "{screen}");
        assert!(screen.contains(&format!("now         {handling}: sentrybox; ")), "{screen}");
        assert!(screen.lines().count() <= 24 && !screen.contains("sntryu_"), "{screen}");
        assert_eq!(stage.sandbox.requests_total(), before);
        assert_eq!(is_hit(&stage.get(target, OWNER).await), is_stored);
    }
    let output = explain(
        &[target, "--json", "--field", "Cache-Control: no-cache", "--token-stdin"],
        "sntryu_demo_owner",
    );
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["now"]["reason"], "client-directive", "{told:#}");
    assert_eq!(told["stored"]["found"], "response", "{told:#}");
    let output = explain(&[target], "");
    assert!(text(&output.stdout).contains("detail=no-credential"), "{output:?}");
    for (arguments, complaint) in [
        (&["acme"][..], "`path` wants"),
        (&[target, "--method", "G T"], "`method` wants"),
        (&[target, "--field", "nonsense"], "--field wants"),
        (&[target, "--token-stdin"], "expected a token"),
    ] {
        let output = explain(arguments, "");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{output:?}");
        assert!(text(&output.stderr).contains(complaint), "{output:?}");
    }
    let output = run(sentrybox().args(["explain", target, "--admin", &admin]), "");
    assert_eq!(output.status.code(), Some(1), "without the admin token: {output:?}");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_who_is_served_without_being_told_the_shared_secret() {
    let access = [
        ("SENTRYBOX_ACCESS__SHARED_SECRET", "canary-canary-canary"),
        ("SENTRYBOX_ACCESS__NETWORKS", "127.0.0.0/8, fd00::/8"),
    ];
    let stage = Stage::set(&access).await;
    let admin = stage.binary.admin.to_string();
    for (from, expected) in [
        (&[][..], "detail=no-credential"),
        (&["--from", "fd00::7"], "detail=no-credential"),
        (&["--from", "192.0.2.7"], "detail=network-not-served"),
        (&["--field", "X-Sentrybox-Secret: another"], "detail=shared-secret"),
    ] {
        let output = run(sentrybox().args(["explain", LIST, "--admin", &admin]).args(from).envs(access), "");
        assert!(text(&output.stdout).contains(expected), "{from:?} {output:?}");
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_ends_with_0_while_the_process_lives_and_with_1_afterwards() {
    let stage = Stage::set(&[]).await;
    let admin = stage.binary.admin.to_string();
    let healthcheck = || run(sentrybox().args(["healthcheck", "--admin", &admin]), "");
    let output = healthcheck();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    stage.close().await;
    let output = healthcheck();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&admin), "{output:?}");
}
