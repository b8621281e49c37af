//! What operators read while the process works, and while it is short of something.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use sentrybox::clock::Clock;
use tokio::time::{sleep, timeout};

use crate::end_to_end::{LIST, OWNER, PATIENCE, Stage};

/// Returns the value of a metric without labels.
async fn metric(stage: &Stage, name: &str) -> f64 {
    let scraped = stage.ask(Method::GET, "/metrics").await;
    let text = scraped.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until a metric without labels is above a value.
async fn rises_above(stage: &Stage, name: &str, value: f64) {
    let rising = timeout(PATIENCE, async {
        while metric(stage, name).await <= value {
            sleep(Duration::from_millis(10)).await;
        }
    });
    rising.await.unwrap_or_else(|_| panic!("{name} stays at {value}"));
}

/// Sets how many files the binary may have open.
fn limit_files(stage: &Stage, most: &str) {
    let process = stage.binary.id().to_string();
    let limit = format!("--nofile={most}:");
    assert!(Command::new("prlimit").args(["--pid", &process, &limit]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lack_of_descriptors_is_counted_and_goes_by() {
    let stage = Stage::set(&[]).await;
    let before = metric(&stage, "sentrybox_accept_errors_total").await;
    limit_files(&stage, "8");
    let _waiting = TcpStream::connect(stage.binary.address).unwrap();
    let told = timeout(PATIENCE, async {
        while !stage.binary.output().contains("could not accept a connection") {
            sleep(Duration::from_millis(10)).await;
        }
    });
    told.await.unwrap();
    limit_files(&stage, "1024");
    rises_above(&stage, "sentrybox_accept_errors_total", before).await;
    assert_eq!(stage.get(LIST, OWNER).await.status.as_u16(), 200);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_files_memory_and_age_are_those_of_the_process() {
    let stage = Stage::set(&[]).await;
    let (files, work) =
        (metric(&stage, "process_open_fds").await, metric(&stage, "process_cpu_seconds_total").await);
    let allocated = metric(&stage, "sentrybox_allocator_allocated_bytes").await;
    let connections: Vec<_> = (0..20).map(|_| TcpStream::connect(stage.binary.address).unwrap()).collect();
    rises_above(&stage, "process_open_fds", files + 10.0).await;
    for number in 0..300 {
        stage.get(&format!("{LIST}?query=anything{number}"), OWNER).await;
    }
    rises_above(&stage, "process_cpu_seconds_total", work).await;
    rises_above(&stage, "sentrybox_allocator_allocated_bytes", allocated).await;
    for resident in ["sentrybox_allocator_resident_bytes", "process_resident_memory_bytes"] {
        assert!((1e6..1e9).contains(&metric(&stage, resident).await), "{resident}");
    }
    let started = metric(&stage, "process_start_time_seconds").await;
    let now = Clock::start().now().duration_since(UNIX_EPOCH).unwrap();
    assert!((0.0..600.0).contains(&(now.as_secs_f64() - started)), "{started}");
    drop(connections);
    stage.close().await;
}
