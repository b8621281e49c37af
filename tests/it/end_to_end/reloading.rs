//! The configuration is read anew, by SIGHUP and by itself, and holds as far as it can.

use std::fs;
use std::path::Path;

use http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::end_to_end::{LIST, OTHER as OTHER_OWNER, OWNER, Stage, until};
use crate::support::http::{request, send};

/// A file some of which holds at once.
const OTHER: &str = r#"
secret = "canary, canary, canary, canary, canary"
[log]
requests = "all"
paths = "full"
[cache]
max_bytes = "64MiB"
"#;

/// A file with two problems.
const WRONG: &str = r#"
[log]
level = "loud"
requests = "all"
[[cache.rules]]
route = "/api/0/a/"
class = "nonesuch"
"#;

/// A process and the file that configures it.
struct Case {
    stage: Stage,
    directory: TempDir,
}

impl Case {
    async fn begin(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("sentrybox.toml");
        fs::write(&file, text).unwrap();
        Self { stage: Stage::configured(&file).await, directory }
    }

    /// Writes another file, and asks for it to be read.
    fn reload(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
        self.stage.binary.hang_up();
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("sentrybox.toml")
    }

    /// Waits for a line with this message, and returns the last one.
    async fn line(&self, message: &str) -> Value {
        let find = || {
            let output = self.stage.binary.output();
            let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.rfind(|line| line["message"] == message)
        };
        until(async || find().is_some()).await;
        find().unwrap()
    }

    /// Waits until metrics have these values.
    async fn measures(&self, samples: &[&str]) {
        until(async || {
            let metrics = self.stage.ask(Method::GET, "/metrics").await;
            samples.iter().all(|sample| metrics.text().contains(&format!("{sample}\n")))
        })
        .await;
    }

    /// Returns when a configuration was accepted last.
    async fn accepted(&self) -> f64 {
        let metrics = self.stage.ask(Method::GET, "/metrics").await;
        let name = "sentrybox_config_last_reload_success_timestamp_seconds ";
        metrics.text().lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    }

    async fn get(&self, id: &str) {
        self.stage.get(LIST, &[OWNER[0], ("x-request-id", id)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_holds_at_once_or_is_said_to_need_a_restart() {
    let case = Case::begin("").await;
    case.measures(&["sentrybox_config_generation 1", "sentrybox_config_last_reload_successful 1"]).await;
    let started = case.accepted().await;
    case.get("forwarded").await;
    case.get("a-quiet-hit").await;
    case.reload(OTHER);
    case.measures(&[
        "sentrybox_config_generation 2",
        "sentrybox_config_last_reload_successful 1",
        "sentrybox_config_reloads_total{outcome=\"accepted\"} 1",
    ])
    .await;
    assert!(started < case.accepted().await);
    let line = case.line("configuration reloaded").await;
    assert_eq!((&line["generation"], &line["applied"]), (&2.into(), &"log.paths log.requests".into()));
    assert_eq!(case.line("changed keys need a restart").await["keys"], "cache.max_bytes secret");
    case.get("a-loud-hit").await;
    until(async || case.stage.binary.output().contains("a-loud-hit")).await;
    let line = case.line("request served").await;
    assert_eq!(
        (&line["request_id"], &line["path"], &line["handling"]),
        (&"a-loud-hit".into(), &LIST.into(), &"reuse".into())
    );
    let output = case.stage.binary.output();
    assert!(!output.contains("a-quiet-hit") && !output.contains("canary"), "{output}");
    case.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_is_told_by_file_key_and_expectation() {
    let case = Case::begin("").await;
    case.reload(WRONG);
    case.measures(&[
        "sentrybox_config_generation 1",
        "sentrybox_config_last_reload_successful 0",
        "sentrybox_config_reloads_total{outcome=\"rejected\"} 1",
    ])
    .await;
    assert_eq!(case.line("configuration rejected, and nothing has changed").await["problems"], 2);
    let output = case.stage.binary.output();
    let problems = output.lines().filter(|line| line.contains("configuration problem"));
    let problems: Vec<Value> = problems.map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| problems.iter().find(|line| line["key"] == key).unwrap();
    for key in ["log.level", "cache.rules.0.class"] {
        assert_eq!(of(key)["source"], case.file().to_str().unwrap());
    }
    assert!(of("log.level")["expected"].as_str().unwrap().contains("`debug`"), "{problems:?}");
    case.get("forwarded").await;
    case.get("a-quiet-hit").await;
    case.get("a-quiet-hit").await;
    case.reload("[log]\nlevel = \"warn\"");
    case.measures(&[
        "sentrybox_config_generation 2",
        "sentrybox_config_last_reload_successful 1",
        "sentrybox_config_reloads_total{outcome=\"accepted\"} 1",
    ])
    .await;
    assert!(!case.stage.binary.output().contains("a-quiet-hit"));
    let level = case.stage.ask(Method::GET, "/log").await;
    assert_eq!(level.text(), r#"{"level":"warn"}"#);
    // The next one says that it ends.
    case.reload("[log]\nlevel = \"info\"");
    case.measures(&["sentrybox_config_generation 3"]).await;
    case.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_level_takes_the_place_of_an_operators() {
    let case = Case::begin("").await;
    let debug = request(Method::PUT, "/log", &[], r#"{"level":"debug"}"#);
    send(case.stage.binary.admin, debug).await.unwrap();
    case.reload("");
    case.measures(&["sentrybox_config_generation 2"]).await;
    assert_eq!(case.stage.ask(Method::GET, "/log").await.text(), r#"{"level":"info"}"#);
    case.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_is_a_wrong_one() {
    let case = Case::begin("").await;
    fs::remove_file(case.file()).unwrap();
    case.stage.binary.hang_up();
    case.measures(&["sentrybox_config_generation 1", "sentrybox_config_last_reload_successful 0"]).await;
    assert!(Path::new(case.line("configuration problem").await["source"].as_str().unwrap()) == case.file());
    case.stage.close().await;
}

/// The secret under which fingerprints are told here.
const SECRET: &str = "secret = \"canary, canary, canary, canary, canary\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_no_longer_listed_is_refused_with_the_next_request() {
    let shut = |fingerprint: &str| format!("{SECRET}[access]\ncredentials = [\"{fingerprint}\"]");
    let case = Case::begin(&shut("0123456789abcdef")).await;
    let refused = case.stage.get(LIST, OWNER).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    // What it is told to hand to its operator is what its operator needs.
    let (_, after) = refused.text().split_once("its fingerprint is ").unwrap();
    let fingerprint = after.get(..16).unwrap().to_owned();
    case.reload(&shut(&fingerprint));
    case.measures(&["sentrybox_config_generation 2"]).await;
    assert_eq!(case.line("configuration reloaded").await["applied"], "access.credentials");
    for _ in 0..2 {
        assert_eq!(case.stage.get(LIST, OWNER).await.status, StatusCode::OK);
    }
    assert_eq!(case.stage.get(LIST, OTHER_OWNER).await.status, StatusCode::FORBIDDEN);
    case.reload(&shut("0123456789abcdef"));
    case.measures(&["sentrybox_config_generation 3"]).await;
    assert_eq!(case.stage.get(LIST, OWNER).await.status, StatusCode::FORBIDDEN, "although it is fresh");
    case.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_secret_in_a_file_of_its_own_is_read_anew() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("shared");
    fs::write(&file, "canary-canary-one\n").unwrap();
    let text = format!("[access]\nshared_secret_file = {file:?}\nshared_secret_header = \"X-Gate\"");
    let case = Case::begin(&text).await;
    let status = async |shared: &str| case.stage.get(LIST, &[OWNER[0], ("x-gate", shared)]).await.status;
    assert_eq!(status("canary-canary-one").await, StatusCode::OK);
    fs::write(&file, "canary-canary-two\n").unwrap();
    case.reload(&text);
    case.measures(&["sentrybox_config_generation 2"]).await;
    assert_eq!(case.line("configuration reloaded").await["applied"], "access.shared_secret");
    assert_eq!(status("canary-canary-one").await, StatusCode::FORBIDDEN);
    assert_eq!(status("canary-canary-two").await, StatusCode::OK);
    assert!(!case.stage.binary.output().contains("canary"));
    case.stage.close().await;
}

/// Looks often.
const POLLED: &str = "[reload]\npoll = \"50ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_kubernetes_swaps_is_noticed_by_itself() {
    let mount = TempDir::new().unwrap();
    let swap = |version: &str, text: &str| {
        let folder = mount.path().join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("sentrybox.toml"), format!("{POLLED}{text}")).unwrap();
        std::os::unix::fs::symlink(version, mount.path().join("..data_tmp")).unwrap();
        fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    };
    swap("one", "");
    let file = mount.path().join("sentrybox.toml");
    std::os::unix::fs::symlink("..data/sentrybox.toml", &file).unwrap();
    let stage = Stage::configured(&file).await;
    assert_eq!(stage.get(LIST, OWNER).await.status, StatusCode::OK);
    swap("two", "[access]\nnetworks = [\"192.0.2.0/24\"]");
    until(async || stage.get(LIST, OWNER).await.status == StatusCode::FORBIDDEN).await;
    swap("three", "");
    until(async || stage.get(LIST, OWNER).await.status == StatusCode::OK).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_is_rejected_once_and_one_that_is_gone_for_a_moment_changes_nothing() {
    let case = Case::begin(POLLED).await;
    let write = |text: &str| fs::write(case.file(), format!("{POLLED}{text}")).unwrap();
    write("[log]\nlevel = \"loud\"");
    case.measures(&["sentrybox_config_reloads_total{outcome=\"rejected\"} 1"]).await;
    fs::remove_file(case.file()).unwrap();
    let line = case.line("configuration file cannot be read, and nothing has changed").await;
    assert_eq!(line["file"], case.file().to_str().unwrap());
    write("[log]\nlevel = \"loud\"");
    // Several looks later:
    case.get("served").await;
    write("[log]\nrequests = \"all\"");
    case.measures(&["sentrybox_config_generation 2"]).await;
    case.measures(&[
        "sentrybox_config_reloads_total{outcome=\"rejected\"} 1",
        "sentrybox_config_reloads_total{outcome=\"accepted\"} 1",
        "sentrybox_config_last_reload_successful 1",
    ])
    .await;
    assert_eq!(case.stage.binary.output().matches("cannot be read").count(), 1);
    case.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_secret_that_is_replaced_is_noticed_by_itself() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("shared");
    fs::write(&file, "canary-canary-one").unwrap();
    let case = Case::begin(&format!("{POLLED}[access]\nshared_secret_file = {file:?}")).await;
    let status =
        async |shared: &str| case.stage.get(LIST, &[OWNER[0], ("x-sentrybox-secret", shared)]).await.status;
    assert_eq!(status("canary-canary-one").await, StatusCode::OK);
    fs::write(directory.path().join("new"), "canary-canary-two").unwrap();
    fs::rename(directory.path().join("new"), &file).unwrap();
    until(async || status("canary-canary-two").await == StatusCode::OK).await;
    assert_eq!(status("canary-canary-one").await, StatusCode::FORBIDDEN);
    case.stage.close().await;
}
