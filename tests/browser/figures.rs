//! The same figures twice: as the metrics have them, and as the page shows them.

use std::collections::BTreeMap;

/// What a scraper reads.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Vec<(String, u64)>);

/// Exact values by the ids of the page's figures.
pub(crate) type Figures = BTreeMap<String, String>;

impl Metrics {
    /// Reads the whole numbers of an exposition.
    pub(crate) fn read(exposition: &str) -> Self {
        let lines = exposition.lines().filter(|line| !line.starts_with('#'));
        let numbers = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(numbers.collect())
    }

    /// Returns the sum of a metric over its series that have a label, written as in the exposition; all of them where it is
    /// empty.
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let is_of = |series: &str| series.split('{').next() == Some(name) && series.contains(label);
        self.0.iter().filter(|(series, _)| is_of(series)).map(|(_, value)| value).sum()
    }

    /// Returns what the page must show.
    pub(crate) fn figures(&self) -> Figures {
        let handled = |label: &str| self.sum("sentrybox_requests_total", label);
        let (all, forwarded, refused) =
            (handled(""), handled("handling=\"forward\""), handled("handling=\"refuse\""));
        let outcome =
            |name: &str| self.sum("sentrybox_upstream_requests_total", &format!("outcome=\"{name}\""));
        let failures = ["5xx", "unreachable", "timeout", "broken"];
        let gates = |kind: &str| self.sum("sentrybox_budget_gates_closed", &format!("kind=\"{kind}\""));
        let counts = [
            ("requests-total", all),
            ("refused-total", refused),
            ("failed-total", outcome("429") + failures.into_iter().map(outcome).sum::<u64>()),
            ("upstream-total", self.sum("sentrybox_upstream_requests_total", "")),
            ("saved-total", self.sum("sentrybox_saved_requests_total", "")),
            ("waiting", self.sum("sentrybox_budget_waiting", "")),
            ("stored-responses", self.sum("sentrybox_store_responses", "")),
            ("stored-bytes", self.sum("sentrybox_store_bytes", "")),
            ("gates-limit", gates("limit")),
            ("gates-route", gates("route")),
            ("gates-upstream", gates("upstream")),
        ];
        let mut figures: Figures =
            counts.into_iter().map(|(id, count)| (id.to_owned(), count.to_string())).collect();
        let share = float(all - forwarded - refused) / float(all);
        figures.insert("hit-ratio".to_owned(), format!("{share:.6}"));
        figures
    }
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
