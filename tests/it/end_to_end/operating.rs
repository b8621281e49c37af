//! What operators read while the process is short of something.

use std::net::TcpStream;
use std::process::Command;

use http::Method;
use tokio::time::{sleep, timeout};

use crate::end_to_end::{LIST, OWNER, PATIENCE, Stage};
use crate::support::http::Answer;

/// Returns the value of a metric without labels.
fn metric(scraped: &Answer, name: &str) -> f64 {
    let text = scraped.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
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
    let before = metric(&stage.ask(Method::GET, "/metrics").await, "sentrybox_accept_errors_total");
    limit_files(&stage, "8");
    let _waiting = TcpStream::connect(stage.binary.address).unwrap();
    let told = timeout(PATIENCE, async {
        while !stage.binary.output().contains("could not accept a connection") {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    told.await.unwrap();
    limit_files(&stage, "1024");
    let after = metric(&stage.ask(Method::GET, "/metrics").await, "sentrybox_accept_errors_total");
    assert!(after > before, "{after}");
    assert_eq!(stage.get(LIST, OWNER).await.status.as_u16(), 200);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_age_are_those_of_the_process() {
    let stage = Stage::set(&[]).await;
    let read = async || {
        let scraped = stage.ask(Method::GET, "/metrics").await;
        let names = [
            "sentrybox_allocator_allocated_bytes",
            "sentrybox_allocator_resident_bytes",
            "process_resident_memory_bytes",
        ];
        names.map(|name| metric(&scraped, name))
    };
    let before = read().await;
    for number in 0..300 {
        stage.get(&format!("{LIST}?query=anything{number}"), OWNER).await;
    }
    let after = read().await;
    assert!(before.iter().zip(after).all(|(before, after)| *before < after), "{before:?} {after:?}");
    let started = metric(&stage.ask(Method::GET, "/metrics").await, "process_start_time_seconds");
    let now = sentrybox::clock::Clock::start().now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((0.0..600.0).contains(&(now.as_secs_f64() - started)), "{started}");
    stage.close().await;
}
