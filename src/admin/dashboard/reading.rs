//! Reads the metrics as a scraper would, so that the dashboard shows the very numbers that are scraped.
//!
//! Invariant: what is not there reads as nothing, never as an error. Not here: which metrics there are (`metrics`).

use std::collections::BTreeMap;

use crate::metrics::exposition::Exposition;
use crate::metrics::{BUCKETS, Metrics};

/// How many buckets a histogram of durations has, the last one without a bound included.
pub const BUCKET_COUNT: usize = BUCKETS.len() + 1;

/// Every series at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading(Vec<Series>);

/// One line of the exposition.
#[derive(Debug, Clone, PartialEq)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    /// The value, where it is a whole number.
    count: u64,
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at_checked(end)?;
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while let Some((label, after)) = rest.split_once("=\"") {
                let (value, after) = quoted(after)?;
                labels.push((label.trim_start_matches(',').to_owned(), value));
                rest = after;
                if rest.starts_with('}') {
                    break;
                }
            }
            rest = rest.strip_prefix('}')?;
        }
        let value = rest.split_ascii_whitespace().next()?;
        let count = value.parse().unwrap_or_default();
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()?, count })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// Reads a label's value up to its closing quotation mark, and returns what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(place + 1..)?)),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(letter),
        }
    }
    None
}

impl Reading {
    /// Reads every metric now.
    pub fn take(metrics: &Metrics) -> Self {
        Self::from_lines(&metrics.encode(Exposition::OpenMetrics))
    }

    /// Reads lines of the exposition; what is none is left out.
    pub fn from_lines(exposition: &str) -> Self {
        let lines = exposition.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(Series::parse).collect())
    }

    fn named<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |series| series.name == name && series.has(labels))
    }

    /// Returns the sum of the whole numbers of all series of a metric that have these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.named(name, labels).map(|series| series.count).fold(0, u64::saturating_add)
    }

    /// Returns the value of the first series of a metric that has these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.named(name, labels).next().map(|series| series.value)
    }

    /// Returns the sums of a metric's whole numbers by the values of one label.
    pub fn counts_by(&self, name: &str, label: &str) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for series in self.0.iter().filter(|series| series.name == name) {
            let sum: &mut u64 = sums.entry(series.label(label).unwrap_or_default()).or_default();
            *sum = sum.saturating_add(series.count);
        }
        sums
    }

    /// Returns how many observations each bucket of a histogram of durations holds, over all series with these labels.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> [u64; BUCKET_COUNT] {
        let mut buckets = [0; BUCKET_COUNT];
        let bounds: Vec<f64> = BUCKETS.into_iter().chain([f64::INFINITY]).collect();
        for series in self.named(&format!("{name}_bucket"), labels) {
            let bound: Option<f64> = series.label("le").and_then(|bound| bound.parse().ok());
            let place = bound.and_then(|bound| bounds.iter().position(|known| *known >= bound));
            if let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) {
                *bucket += series.count;
            }
        }
        // Each counts all that is shorter, too: only the difference to the one before is its own.
        let mut below = 0;
        for bucket in &mut buckets {
            let cumulative = *bucket;
            *bucket = cumulative.saturating_sub(below);
            below = cumulative;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::StatusCode;

    use super::*;
    use crate::handling::{ForwardReason, Handling};
    use crate::metrics::LabelValues;

    #[test]
    fn what_was_counted_is_read() {
        let route = "/api/0/organizations/{organization}/";
        let labels = LabelValues { routes: vec![route.to_owned()], ..LabelValues::default() };
        let metrics = Metrics::new(UNIX_EPOCH, &labels);
        let stale = Handling::Forward(ForwardReason::Stale);
        for (handling, elapsed) in [(Handling::Reuse, 60), (Handling::Reuse, 90), (stale, 3_000_000)] {
            metrics.requests.observe(handling, StatusCode::OK, Duration::from_micros(elapsed));
            metrics.requests.observe_route(route, handling);
        }
        let reading = Reading::take(&metrics);
        assert_eq!(reading.count("sentrybox_requests_total", &[]), 3);
        assert_eq!(reading.count("sentrybox_requests_total", &[("handling", "reuse")]), 2);
        assert_eq!(reading.count("sentrybox_requests_total", &[("handling", "refuse")]), 0);
        let by_route = reading.counts_by("sentrybox_requests_by_route_total", "route");
        assert_eq!(by_route.into_iter().collect::<Vec<_>>(), [(route, 3)]);
        let reused = reading.buckets("sentrybox_request_duration_seconds", &[("handling", "reuse")]);
        assert_eq!((reused[0], reused[1], reused.iter().sum::<u64>()), (0, 2, 2));
        let forwarded = reading.buckets("sentrybox_request_duration_seconds", &[("handling", "forward")]);
        assert_eq!((forwarded[15], forwarded.iter().sum::<u64>()), (1, 1));
        assert!(reading.value("process_start_time_seconds", &[]).is_some());
    }

    #[test]
    fn a_labels_value_may_hold_anything() {
        let reading = Reading::from_lines("a{one=\"x}\\\"y\\n,\",two=\"z\"} 4\nb 0.25\nbroken{\n");
        assert_eq!(reading.counts_by("a", "one").into_iter().collect::<Vec<_>>(), [("x}\"y\n,", 4)]);
        assert_eq!(reading.count("a", &[("two", "z")]), 4);
        assert_eq!(reading.value("b", &[]), Some(0.25));
        assert_eq!(reading.0.len(), 2);
    }
}
