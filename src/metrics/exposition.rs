//! The two text formats that a scraper may ask for.
//!
//! The library writes OpenMetrics 1.0. The older format differs in three things that we use: a counter's family
//! has the name of its samples, `_total` included; there are no units; there is no end mark.
//!
//! Invariant: a scraper that does not ask for OpenMetrics gets the older format, which every one understands.
//! Not here: the HTTP around it (`admin`).

/// A text format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Exposition {
    /// Returns the format to answer with, by the value of the request's `Accept` field.
    pub fn negotiate(accept: &str) -> Self {
        if accept.split(',').any(is_open_metrics) { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the value of the answer's `Content-Type` field.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Turns OpenMetrics text into this format.
    pub fn adapt(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => to_text(&open_metrics),
        }
    }
}

/// Returns whether a media range asks for the version of OpenMetrics that we write.
fn is_open_metrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_type = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
    is_type
        && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| match name {
            "version" => value == "1.0.0",
            "q" => value.parse::<f32>().is_ok_and(|weight| weight > 0.0),
            _ => true,
        })
}

fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                push_line(&mut text, &["# HELP ", name, suffix, " ", help]);
            }
            push_line(&mut text, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push_line(&mut text, &[line]);
        }
    }
    text
}

fn push_line(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_spoken_only_when_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Exposition::negotiate(prometheus), Exposition::OpenMetrics);
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text; version=0.0.1",
            "application/openmetrics-text; version=1.0.0; q=0",
        ] {
            assert_eq!(Exposition::negotiate(accept), Exposition::Text, "{accept}");
        }
    }

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_and_has_no_units() {
        let open_metrics = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                            a_seconds_total 1\n# HELP b Level.\n# TYPE b gauge\nb 2\n# EOF\n";
        let text = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                    # HELP b Level.\n# TYPE b gauge\nb 2\n";
        assert_eq!(Exposition::Text.adapt(open_metrics.to_owned()), text);
    }
}
