//! Reads what the operating system and the allocator know about this process, at each scrape.
//!
//! The names under `process_` are those that Prometheus' own client libraries use, so that common dashboards work.
//! Invariant: what cannot be read is left out; it is never zero. Not here: the clock (the start is handed in).

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks per second in `/proc`: Linux fixes `USER_HZ` at 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// This process.
#[derive(Debug)]
pub struct Process {
    started: SystemTime,
}

impl Process {
    /// Describes the process that was started at `started`.
    pub fn started(started: SystemTime) -> Self {
        Self { started }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauge(&mut encoder, ("process_start_time", "Start of the process", Some(Unit::Seconds)), started)?;
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat))
        {
            let help = "Processor time, user and system.";
            let unit = Unit::Seconds;
            let metric = encoder.encode_descriptor("process_cpu", help, Some(&unit), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        let status = fs::read_to_string("/proc/self/status").ok();
        if let Some(bytes) = status.and_then(|status| resident_bytes(&status)) {
            let name = ("process_resident_memory", "Resident memory", Some(Unit::Bytes));
            gauge(&mut encoder, name, bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The listing itself holds one descriptor open.
            let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge(&mut encoder, ("process_open_fds", "Open file descriptors", None), f64::from(open))?;
        }
        allocator(&mut encoder)
    }
}

/// Encodes the allocator's levels, where it knows them.
fn allocator(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    use tikv_jemalloc_ctl::{epoch, stats};

    // Its figures are those of the last advance.
    if epoch::advance().is_err() {
        return Ok(());
    }
    if let Ok(allocated) = stats::allocated::read() {
        let help = "Bytes asked of the allocator";
        let name = ("sentrybox_allocator_allocated", help, Some(Unit::Bytes));
        gauge(encoder, name, as_level(allocated))?;
    }
    if let Ok(resident) = stats::resident::read() {
        let help = "Bytes that the allocator holds in memory";
        let name = ("sentrybox_allocator_resident", help, Some(Unit::Bytes));
        gauge(encoder, name, as_level(resident))?;
    }
    Ok(())
}

/// Encodes one gauge, given as name, help and unit.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    level: impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    let help = format!("{help}.");
    let metric = encoder.encode_descriptor(name, &help, unit.as_ref(), MetricType::Gauge)?;
    ConstGauge::new(level).encode(metric)
}

fn as_level(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the processor time in `/proc/self/stat`, in seconds (proc_pid_stat(5), fields 14 and 15).
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the command's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// Returns the resident memory in `/proc/self/status`, in bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (broken"), None);
        assert_eq!(cpu_seconds("7 (short) S 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
