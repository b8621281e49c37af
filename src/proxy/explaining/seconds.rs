//! Tells durations: in seconds to machines, in words to people.
//!
//! Invariant: nothing is told more finely than in milliseconds. Not here: moments (`headers::dates`).

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A duration that is told: in seconds to machines, as in `2m 5s` to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole milliseconds: what is finer is of no use to anybody.
        let whole = Duration::new(self.0.as_secs(), self.0.subsec_millis() * 1_000_000);
        serializer.serialize_f64(whole.as_secs_f64())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let seconds = self.0.as_secs();
        if seconds < 10 && self.0.subsec_millis() > 0 {
            return write!(formatter, "{:.1}s", self.0.as_secs_f64());
        }
        let mut rest = seconds;
        let parts = UNITS.iter().filter_map(|(unit, name)| {
            let count = rest / unit;
            rest %= unit;
            (count > 0).then(|| format!("{count}{name}"))
        });
        // Two units say enough.
        let parts: Vec<String> = parts.take(2).collect();
        formatter.write_str(if parts.is_empty() { "0s" } else { "" })?;
        formatter.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_to_people_in_two_units_and_to_machines_in_seconds() {
        for (milliseconds, text, number) in [
            (0, "0s", "0.0"),
            (400, "0.4s", "0.4"),
            (2_000, "2s", "2.0"),
            (12_345, "12s", "12.345"),
            (125_000, "2m 5s", "125.0"),
            (7_200_000, "2h", "7200.0"),
            (90_061_000, "1d 1h", "90061.0"),
        ] {
            let told = Seconds(Duration::from_millis(milliseconds));
            assert_eq!(told.to_string(), text);
            assert_eq!(serde_json::to_string(&told).unwrap(), number);
        }
    }
}
