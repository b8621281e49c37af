//! Writes the part of the page that moves: figures, charts, budgets, routes, events.
//!
//! Invariants: whatever comes from outside is escaped; each figure carries its exact value in `data-value`, so that it can be
//! compared with the metrics. Not here: the page around it (`page.html`), where the numbers come from (`admin::dashboard`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::dashboard::chart::{Chart, Form, Series, Unit};
use crate::admin::dashboard::events::Event;
use crate::admin::dashboard::history::{Column, Totals, float};
use crate::admin::dashboard::html::{breakable, bytes, count, escaped};
use crate::admin::dashboard::range::Range;
use crate::admin::dashboard::reading::Reading;
use crate::cache::store::holdings::Holding;
use crate::proxy::overview::BudgetView;
use crate::routes::RouteLabel;

/// Most rows of a table.
const ROWS: usize = 12;

/// Everything that is shown, at one moment.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What the metrics say.
    pub reading: &'a Reading,
    /// What was counted in each part of the time that is shown.
    pub columns: Vec<Column>,
    /// How much time is shown.
    pub range: Range,
    /// The shortest budgets.
    pub budgets: Vec<BudgetView>,
    /// What is stored.
    pub stored: BTreeMap<RouteLabel, Holding>,
    /// What has happened, the latest first.
    pub events: Vec<Event>,
    /// Whether new requests are welcome.
    pub readiness: &'static str,
    /// The present moment.
    pub now: SystemTime,
}

impl Scene<'_> {
    /// Writes all panels.
    pub fn write(&self) -> String {
        let charts = [self.requests(), self.hit_ratio(), self.upstream(), self.latency()];
        let charts: String = charts.iter().map(Chart::draw).collect();
        let sections = [
            ("figures", "Now", self.figures()),
            ("charts", "Over time", charts),
            ("budgets", "Budgets, the shortest first", self.budgets()),
            ("gates", "Gates", self.gates()),
            ("asked", "Most-asked routes", self.asked()),
            ("stored", "Stored, by route", self.stored()),
            ("events", "Recent events", self.events()),
        ];
        sections.iter().fold(String::new(), |mut text, (id, title, inside)| {
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                "<section id=\"{id}\" aria-labelledby=\"{id}-title\"><h2 id=\"{id}-title\">{title}</h2>\
                 <div class=\"inside\">{inside}</div></section>"
            );
            text
        })
    }

    fn figures(&self) -> String {
        let reading = self.reading;
        let totals = Totals::of(reading);
        let lately =
            self.columns.iter().filter_map(|column| column.counted).fold(Totals::default(), Totals::plus);
        let waiting = reading.count("sentrybox_budget_waiting", &[]);
        let stored = reading.count("sentrybox_store_bytes", &[]);
        let most = reading.count("sentrybox_store_max_bytes", &[]);
        let responses = reading.count("sentrybox_store_responses", &[]);
        let failed = totals.upstream_refused + totals.upstream_failed;
        let started = reading.value("process_start_time_seconds", &[]).unwrap_or_default();
        let up = self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - started;
        let counted = |value: u64| (count(value), value.to_string());
        let lately_shown = format!("Hit ratio, last {}", self.range.name());
        let rows = [
            ("hit-ratio", "Hit ratio", shown_share(&totals)),
            ("hit-ratio-lately", &lately_shown, shown_share(&lately)),
            ("requests-total", "Requests", counted(totals.answered())),
            ("upstream-total", "Calls upstream", counted(totals.upstream)),
            ("saved-total", "Calls saved", counted(totals.saved)),
            ("refused-total", "Refused here", counted(totals.refused)),
            ("failed-total", "Refused or failed upstream", counted(failed)),
            ("waiting", "Waiting now", counted(waiting)),
            ("stored-responses", "Stored responses", counted(responses)),
            ("stored-bytes", &format!("Stored, of {}", bytes(most)), (bytes(stored), stored.to_string())),
            ("uptime", "Up", (span(Duration::try_from_secs_f64(up).unwrap_or_default()), format!("{up:.0}"))),
            ("readiness", "State", (self.readiness.to_owned(), self.readiness.to_owned())),
        ];
        let rows = rows.map(|(id, name, (text, exact))| {
            format!(
                "<div class=\"card figure\"><dt>{name}</dt><dd id=\"{id}\" data-value=\"{}\">{}</dd></div>",
                escaped(&exact),
                escaped(&text)
            )
        });
        format!("<dl>{}</dl>", rows.concat())
    }

    /// Makes a series of a number that each column has.
    fn series(&self, name: &'static str, class: &'static str, of: impl Fn(&Totals) -> Option<f64>) -> Series {
        let values = self.columns.iter().map(|column| column.counted.as_ref().and_then(&of)).collect();
        Series { name, class, values }
    }

    /// Makes a series of a rate.
    fn rate(&self, name: &'static str, class: &'static str, of: impl Fn(&Totals) -> u64) -> Series {
        let seconds = self.range.column().as_secs_f64();
        self.series(name, class, |counted| Some(float(of(counted)) / seconds))
    }

    fn chart(&self, title: &'static str, unit: Unit, (form, series): (Form, Vec<Series>)) -> Chart {
        Chart { title, unit, form, series, span: self.range.span(), until: self.now }
    }

    fn requests(&self) -> Chart {
        let series = vec![
            self.rate("reused", "reused", |counted| counted.reused),
            self.rate("forwarded", "forwarded", |counted| counted.forwarded),
            self.rate("refused", "trouble", |counted| counted.refused),
        ];
        self.chart("Requests", Unit::PerSecond, (Form::Stacked, series))
    }

    fn hit_ratio(&self) -> Chart {
        let ratio = |counted: &Totals| {
            let answered = counted.answered();
            (answered > 0).then(|| float(counted.reused) / float(answered))
        };
        let series = vec![self.series("hit ratio", "reused", ratio)];
        self.chart("Hit ratio", Unit::Share, (Form::Lines, series))
    }

    fn upstream(&self) -> Chart {
        let series = vec![
            self.rate("saved", "reused", |counted| counted.saved),
            self.rate("made", "forwarded", |counted| counted.upstream),
            self.rate("refused or failed", "trouble", |counted| {
                counted.upstream_refused + counted.upstream_failed
            }),
        ];
        self.chart("Calls upstream", Unit::PerSecond, (Form::Lines, series))
    }

    fn latency(&self) -> Chart {
        let series = vec![
            self.series("reuse p50", "reused", |counted| counted.reuse.quantile(500)),
            self.series("reuse p99", "reused-tail", |counted| counted.reuse.quantile(990)),
            self.series("forward p50", "forwarded", |counted| counted.forward.quantile(500)),
            self.series("forward p99", "forwarded-tail", |counted| counted.forward.quantile(990)),
        ];
        self.chart("Time to answer", Unit::Seconds, (Form::Logarithmic, series))
    }

    fn budgets(&self) -> String {
        if self.budgets.is_empty() {
            return nothing("No limit of Sentry's is known yet: the first answers will tell.");
        }
        let rows = self.budgets.iter().map(|budget| self.budget(budget));
        format!("<ul class=\"budgets\">{}</ul>", rows.collect::<String>())
    }

    fn budget(&self, budget: &BudgetView) -> String {
        let BudgetView { limit, method, .. } = budget;
        let caller = escaped(&budget.caller);
        let meter = match (limit.limit, limit.remaining) {
            (Some(limit), Some(remaining)) => format!(
                "<meter min=\"0\" max=\"{limit}\" low=\"{}\" high=\"{}\" optimum=\"{limit}\" value=\"{remaining}\" \
                 aria-label=\"{remaining} of {limit} left for {caller}\"></meter><span>{remaining} of {limit} left</span>",
                limit / 5,
                limit / 2
            ),
            (None, _) | (_, None) => "<span>no window</span>".to_owned(),
        };
        let reset = limit.reset.map(|reset| UNIX_EPOCH + Duration::from_secs(reset));
        let window = reset.and_then(|reset| reset.duration_since(self.now).ok());
        let concurrent = limit.concurrent_limit.zip(limit.concurrent_remaining);
        let closed =
            budget.closed.map(|(wait, hold)| format!("closed for {} ({})", span(wait), hold.label()));
        let facts = [
            window.map(|left| format!("window ends in {}", span(left))),
            concurrent.map(|(limit, left)| format!("{left} of {limit} at a time free")),
            (budget.waiting > 0).then(|| format!("{} waiting", budget.waiting)),
            closed,
        ];
        let facts = facts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
        let routes = routes_of(&budget.routes);
        let is_short = limit.remaining == Some(0) || budget.closed.is_some();
        let class = if is_short { "card trouble" } else { "card" };
        format!(
            "<li class=\"{class}\"><div class=\"who\"><code>{caller}</code> {method} <small>{}</small></div>\
             <div class=\"left\">{meter}</div><small>{facts}</small><small class=\"routes\">{routes}</small></li>",
            escaped(&budget.upstream)
        )
    }

    fn gates(&self) -> String {
        let kinds = [
            ("limit", "limits closed by a 429"),
            ("route", "routes refused or failing"),
            ("upstream", "upstreams left alone"),
        ];
        let rows = kinds.map(|(kind, name)| {
            let closed = self.reading.count("sentrybox_budget_gates_closed", &[("kind", kind)]);
            let class = if closed > 0 { "card figure trouble" } else { "card figure" };
            format!(
                "<div class=\"{class}\"><dt>{name}</dt><dd id=\"gates-{kind}\" data-value=\"{closed}\">{closed}</dd></div>"
            )
        });
        format!("<dl>{}</dl>", rows.concat())
    }

    fn asked(&self) -> String {
        let asked = self.reading.counts_by("sentrybox_requests_by_route_total", "route");
        let mut rows: Vec<(&str, u64)> = asked.into_iter().collect();
        rows.sort_by_key(|(_, asked)| std::cmp::Reverse(*asked));
        rows.truncate(ROWS);
        let row = |(route, asked): &(&str, u64)| {
            let handled = |handling| {
                let labels = [("route", *route), ("handling", handling)];
                self.reading.count("sentrybox_requests_by_route_total", &labels)
            };
            let reused = asked.saturating_sub(handled("forward")).saturating_sub(handled("refuse"));
            [breakable(route), count(*asked), share(reused, *asked)]
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        table(["Route", "Requests", "Hits"], &rows, "Nobody has asked for anything yet.")
    }

    fn stored(&self) -> String {
        let mut rows: Vec<(&RouteLabel, &Holding)> = self.stored.iter().collect();
        rows.sort_by_key(|(_, holding)| std::cmp::Reverse(holding.bytes));
        rows.truncate(ROWS);
        let row = |(route, holding): &(&RouteLabel, &Holding)| {
            [breakable(route.as_str()), count(holding.responses), bytes(holding.bytes)]
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        table(["Route", "Responses", "Size"], &rows, "Nothing is stored.")
    }

    fn events(&self) -> String {
        let row = |event: &Event| {
            let class = if event.kind.is_trouble() { "trouble" } else { "plain" };
            let times = if event.count > 1 { format!(" × {}", count(event.count)) } else { String::new() };
            let at = httpdate::fmt_http_date(event.last);
            let ago = ago(self.now.duration_since(event.last).unwrap_or_default());
            format!(
                "<li><time title=\"{at}\">{ago}</time> <b class=\"{class}\">{}</b>{times} {}</li>",
                event.kind.label(),
                escaped(&event.detail)
            )
        };
        format!("<ol class=\"card events\">{}</ol>", self.events.iter().map(row).collect::<String>())
    }
}

fn nothing(text: &str) -> String {
    format!("<p class=\"card nothing\">{text}</p>")
}

/// Writes a table whose cells are escaped already.
fn table(heads: [&str; 3], rows: &[[String; 3]], empty: &str) -> String {
    if rows.is_empty() {
        return nothing(empty);
    }
    let [first, second, third] = heads;
    let mut text = format!(
        "<table class=\"card\"><thead><tr><th scope=\"col\">{first}</th><th scope=\"col\">{second}</th>\
         <th scope=\"col\">{third}</th></tr></thead><tbody>"
    );
    for [first, second, third] in rows {
        let _ = write!(text, "<tr><th scope=\"row\">{first}</th><td>{second}</td><td>{third}</td></tr>");
    }
    text.push_str("</tbody></table>");
    text
}

/// Writes the first routes, and how many more there are.
fn routes_of(routes: &[RouteLabel]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = routes.iter().take(SHOWN).map(|route| breakable(route.as_str())).collect();
    let more = routes.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".to_owned() } else { format!("{:.1} %", 100.0 * float(part) / float(whole)) }
}

/// Returns a hit ratio as it is read, and exactly.
fn shown_share(totals: &Totals) -> (String, String) {
    let answered = totals.answered();
    let exact =
        if answered == 0 { String::new() } else { format!("{:.6}", float(totals.reused) / float(answered)) };
    (share(totals.reused, answered), exact)
}

/// Says how long ago something was.
fn ago(duration: Duration) -> String {
    if duration < Duration::from_secs(1) { "just now".to_owned() } else { format!("{} ago", span(duration)) }
}

/// Writes a duration in its largest unit.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dashboard::events::EventKind;
    use crate::budget::limit_fields::LimitFields;

    fn scene(reading: &Reading) -> Scene<'_> {
        let now = UNIX_EPOCH + Duration::from_hours(10);
        let limit = LimitFields {
            limit: Some(40),
            remaining: Some(7),
            reset: Some(36_030),
            concurrent_limit: Some(25),
            concurrent_remaining: Some(24),
        };
        let route = RouteLabel::Template("/api/0/organizations/{organization}/".into());
        Scene {
            reading,
            columns: vec![Column {
                end: now,
                counted: Some(Totals { reused: 3, forwarded: 1, ..Totals::default() }),
            }],
            range: Range::Quarter,
            budgets: vec![BudgetView {
                upstream: "sentry.io".into(),
                caller: "<script>".to_owned(),
                method: http::Method::GET,
                routes: vec![route.clone()],
                limit,
                closed: Some((Duration::from_secs(9), crate::handling::hold::Hold::Gate)),
                waiting: 2,
            }],
            stored: BTreeMap::from([(route, Holding { responses: 1_500, bytes: 3 * 1024 * 1024 })]),
            events: vec![Event {
                kind: EventKind::UpstreamRefused,
                last: now,
                count: 4,
                detail: "<b>".to_owned(),
            }],
            readiness: "ready",
            now,
        }
    }

    #[test]
    fn every_figure_carries_its_exact_value() {
        let lines = "sentrybox_requests_total{handling=\"reuse\"} 12345\nsentrybox_requests_total{handling=\"forward\"} 5\n\
                     sentrybox_store_bytes 1048576\nsentrybox_budget_gates_closed{kind=\"limit\"} 2\n";
        let reading = Reading::from_lines(lines);
        let page = scene(&reading).write();
        for piece in [
            "id=\"requests-total\" data-value=\"12350\"",
            "id=\"hit-ratio\" data-value=\"0.999595\">100.0 %",
            "Stored, of 0 B</dt><dd id=\"stored-bytes\" data-value=\"1048576\">1.0 MiB",
            "id=\"gates-limit\" data-value=\"2\"",
            "id=\"hit-ratio-lately\" data-value=\"0.750000\">75.0 %",
            "7 of 40 left",
            "window ends in 30 s · 24 of 25 at a time free · 2 waiting · closed for 9 s (gate)",
            "<b class=\"trouble\">429</b> × 4",
        ] {
            assert!(page.contains(piece), "{piece}\n{page}");
        }
    }

    #[test]
    fn what_comes_from_outside_is_text() {
        let page = scene(&Reading::default()).write();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script") && page.contains("&lt;b&gt;"));
    }

    #[test]
    fn a_budget_that_lets_nobody_through_stands_out() {
        let reading = Reading::default();
        let mut scene = scene(&reading);
        for (remaining, closed, class) in
            [(7, true, "card trouble"), (0, false, "card trouble"), (7, false, "card")]
        {
            let budget = &mut scene.budgets[0];
            budget.limit.remaining = Some(remaining);
            budget.closed = closed.then_some((Duration::from_secs(9), crate::handling::hold::Hold::Gate));
            let written = scene.budgets();
            assert!(written.contains(&format!("<li class=\"{class}\">")), "{written}");
        }
    }

    #[test]
    fn what_has_just_happened_is_said_so() {
        assert_eq!(ago(Duration::from_millis(366)), "just now");
        assert_eq!(ago(Duration::from_secs(15)), "15 s ago");
    }

    #[test]
    fn a_duration_has_one_unit() {
        let seconds =
            [0, 5, 119, 120, 7_199, 7_200, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(seconds, ["0 ms", "5 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
