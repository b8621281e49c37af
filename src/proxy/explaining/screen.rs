//! Shows an explanation to people: one screen.
//!
//! Invariants: at most 24 lines of at most 100 columns, whatever was asked; nothing that moves a terminal's cursor.
//! Not here: what there is to say (`explaining`).

use std::fmt;
use std::time::Duration;

use crate::proxy::explaining::explanation::{
    Asker, BudgetFacts, ClosedGate, CredentialStanding, Eligible, Explanation, KeyText, Kind, RuleInForce,
    Stored, StoredFacts, Subject,
};
use crate::proxy::explaining::foreseen::{Company, ForwardPlan, Refreshing, Sending, Substitute, Turn};
use crate::proxy::explaining::seconds::Seconds;

/// Width of a screen.
const COLUMNS: usize = 100;

/// Width of the first column.
const MARGIN: usize = 12;

/// Height of a screen.
const LINES: usize = 24;

/// Most lines of one entry, where there is room.
const MOST_LINES: usize = 3;

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = entries(self);
        // As much of each entry as fits beside the title and the line below it.
        let shown = (1..=MOST_LINES).rev().map(|most| lines(&entries, most));
        let shown = shown.into_iter().find(|lines| lines.len() + 2 <= LINES).unwrap_or_default();
        writeln!(formatter, "{}\n", cut(&format!("{} {}", self.method, self.target), COLUMNS))?;
        shown.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

/// Returns the entries in lines, each in so many at the most.
fn lines(entries: &[(&'static str, String)], most: usize) -> Vec<String> {
    let of_entry = |(name, text): &(&'static str, String)| -> Vec<String> {
        let names = std::iter::once(*name).chain(std::iter::repeat(""));
        names.zip(wrapped(text, most)).map(|(name, line)| format!("{name:MARGIN$}{line}")).collect()
    };
    entries.iter().flat_map(of_entry).collect()
}

/// Returns what there is to say, in the order of its worth.
fn entries(explanation: &Explanation) -> Vec<(&'static str, String)> {
    let now = &explanation.now;
    let mut entries =
        vec![("now", format!("{}: {}", now.handling, now.cache_status)), ("why", now.why.clone())];
    entries.extend(now.forward.map(|plan| ("forward", of_forward(&plan))));
    entries.extend(now.refresh.map(|refresh| ("refresh", of_refresh(refresh))));
    if let Some(subject) = &explanation.subject {
        entries.extend(of_subject(subject));
    }
    entries
}

fn of_subject(subject: &Subject) -> Vec<(&'static str, String)> {
    let Subject { rule, credential, upstream, eligibility, key, stored, budget } = subject;
    let mut entries = vec![("rule", of_rule(rule))];
    entries.extend(rule.class.as_ref().map(|_| ("lifetimes", of_lifetimes(rule))));
    entries.push(("credential", of_credential(credential)));
    let manner = match *eligibility {
        Eligible::Cacheable => "",
        Eligible::ReuseOnly => "; its answer is not stored",
        Eligible::Forward => ", past the cache",
    };
    entries.push(("goes to", format!("{} ({}){manner}", upstream.name, upstream.bearing)));
    entries.extend(key.as_ref().map(|key| ("key", of_key(key))));
    entries.extend(stored.as_ref().map(|stored| ("stored", of_stored(stored))));
    if let Some(response) = stored.as_ref().and_then(|stored| stored.response.as_ref()) {
        entries.push(("age", of_age(response)));
        entries.push(("stale", of_windows(response)));
    }
    entries.push(("budget", of_budget(budget)));
    if budget.enabled {
        let gates: Vec<String> = budget.gates.iter().map(of_gate).collect();
        entries.push(("gates", if gates.is_empty() { "all open".to_owned() } else { gates.join(", ") }));
    }
    entries
}

fn of_forward(plan: &ForwardPlan) -> String {
    let company = match plan.company {
        Company::Alone => "alone",
        Company::TakesOff => "for all who ask the same",
        Company::Joins => "joins the one under way",
    };
    let validators = if plan.conditional { ", with validators" } else { "" };
    let sending = match plan.sending {
        Sending::Now => "sent at once".to_owned(),
        Sending::UnderWay => "sent, or about to be".to_owned(),
        Sending::AfterWaiting { hold, at_least_seconds, at_most_seconds } => {
            format!("waits {at_least_seconds} or longer ({hold}), {at_most_seconds} at the most")
        }
        Sending::Never { hold, retry_after_seconds } => {
            format!("not sent ({hold}), worth trying again in {retry_after_seconds}")
        }
    };
    let turn = match plan.turn {
        Turn::NotNeeded => "",
        Turn::Free => ", one at a time",
        Turn::Taken => ", after another one of this credential",
    };
    let failure = match plan.on_failure {
        Substitute::Stored => "if Sentry fails, what is stored goes out",
        Substitute::StoredIfDisconnected => "if Sentry is out of reach, what is stored goes out",
        Substitute::Failure => "if Sentry fails, so does this",
    };
    format!("{company}{validators}; {sending}{turn}; {failure}")
}

fn of_refresh(refresh: Refreshing) -> String {
    match refresh {
        Refreshing::Starts => "starts now".to_owned(),
        Refreshing::UnderWay => "is under way".to_owned(),
        Refreshing::Paused => "paused: the last one has just failed".to_owned(),
        Refreshing::Held { hold } => format!("not now: Sentry may not be asked ({hold})"),
    }
}

fn of_rule(rule: &RuleInForce) -> String {
    let Some(template) = &rule.template else { return "none: only what Sentry states counts".to_owned() };
    let origin = rule.origin.unwrap_or_default();
    let overrides = if rule.overrides { ", overrides Sentry's own lifetime" } else { "" };
    let policy = match (&rule.class, rule.never_with) {
        (Some(class), _) => format!("class {class}{overrides}"),
        (None, Some(parameter)) => format!("never stored with `{parameter}` in the query"),
        (None, None) => "never stored".to_owned(),
    };
    format!("{template} ({origin}), {policy}")
}

fn of_lifetimes(rule: &RuleInForce) -> String {
    let told =
        |window: Option<Seconds>| window.map_or_else(|| "as RFC 9111 says".to_owned(), |it| it.to_string());
    format!(
        "fresh {}, then stale {} while refreshed, {} if Sentry fails",
        told(rule.fresh_for),
        told(rule.stale_while_revalidate),
        told(rule.stale_if_error)
    )
}

fn of_credential(asker: &Asker) -> String {
    let (Some(kind), Some(fingerprint)) = (asker.kind, &asker.fingerprint) else {
        return "none".to_owned();
    };
    let standing = match asker.standing {
        CredentialStanding::Absent | CredentialStanding::Unseen => "not seen by Sentry yet",
        CredentialStanding::Accepted => "accepted by Sentry",
        CredentialStanding::Unverified => "not seen by Sentry for too long",
        CredentialStanding::Rejected => "rejected by Sentry",
        CredentialStanding::Suspended => "suspended: rejected by Sentry, and not accepted since",
    };
    format!("{kind} {fingerprint}, {standing}; counted by {}", asker.counted_by)
}

fn of_key(key: &KeyText) -> String {
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let nominated = if key.nominated.is_empty() {
        String::new()
    } else {
        format!(", by {}", key.nominated.join(" and "))
    };
    format!(
        "{} at {}: the target above, {}, {}, {}{nominated}",
        key.partition,
        key.upstream,
        key.accept,
        or(&key.accept_language, "any language"),
        or(&key.origin, "no origin"),
    )
}

fn of_stored(stored: &Stored) -> String {
    let Some(response) = &stored.response else {
        return match stored.found {
            Kind::Nothing | Kind::Response => "nothing",
            Kind::OtherVariant => "only responses for other values of those fields",
            Kind::Unusable => "something that became unusable",
        }
        .to_owned();
    };
    let reused = match response.reuses {
        0 => "not reused yet".to_owned(),
        1 => "reused once".to_owned(),
        reuses => format!("reused {reuses} times"),
    };
    format!(
        "{} {}, {} bytes ({}), {}, {} validator, {reused}",
        response.status,
        response.content_type.as_deref().unwrap_or("of no type"),
        response.bytes,
        response.coding,
        response.standing,
        if response.has_validator { "with" } else { "without" },
    )
}

fn of_age(response: &StoredFacts) -> String {
    let ttl = Seconds(Duration::from_secs(response.ttl.unsigned_abs()));
    let verdict = if response.is_fresh { "fresh for another" } else { "stale for" };
    format!("{} of {}: {verdict} {ttl}", response.age, response.lifetime)
}

fn of_windows(response: &StoredFacts) -> String {
    let told = |left: Option<Seconds>| match left {
        None => "not allowed".to_owned(),
        Some(left) if left.0.is_zero() => "no more".to_owned(),
        Some(left) => format!("for another {left}"),
    };
    format!(
        "while refreshed {}; if Sentry fails {}",
        told(response.stale_while_revalidate_left),
        told(response.stale_if_error_left)
    )
}

fn of_budget(budget: &BudgetFacts) -> String {
    if !budget.enabled {
        return "not limited (budget.enabled = false)".to_owned();
    }
    let mut parts = Vec::new();
    if let (Some(limit), Some(remaining)) = (budget.limit, budget.remaining) {
        let until = budget.reset.map(|reset| format!(" until {} (Sentry's clock)", time_of_day(reset)));
        parts.push(format!("{remaining} of {limit} left{}", until.unwrap_or_default()));
    }
    if let (Some(limit), Some(remaining)) = (budget.concurrent_limit, budget.concurrent_remaining) {
        parts.push(format!("{remaining} of {limit} at a time"));
    }
    if parts.is_empty() {
        parts.push("nothing known of a limit of Sentry's".to_owned());
    }
    parts.push(format!("{} % in use", budget.pressure_percent));
    if budget.waiting > 0 {
        parts.push(format!("{} waiting", budget.waiting));
    }
    parts.join(", ")
}

fn of_gate(gate: &ClosedGate) -> String {
    let ClosedGate { of, state, hold, left } = gate;
    if left.0.is_zero() {
        format!("{of}: {state}, by {hold}")
    } else {
        format!("{of}: {state} for {left}, by {hold}")
    }
}

/// Returns the time of day in a number of seconds since the Unix epoch, as in `08:00:00 UTC`.
fn time_of_day(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Returns a text in lines that fit beside the margin, so many at the most.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    const WIDTH: usize = COLUMNS - MARGIN;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let word = cut(word, WIDTH);
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(_) | None => lines.push(word),
        }
    }
    if most < lines.len() {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = cut(&format!("{last} {}", " ".repeat(WIDTH)), WIDTH);
        }
    }
    lines
}

/// Returns a text of at most so many characters, none of which does anything.
fn cut(text: &str, width: usize) -> String {
    let mut letters = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let mut short: String = letters.by_ref().take(width).collect();
    if letters.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handling::{Refusal, RefusalReason};

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a\u{1b}[2J", 9), "a\u{fffd}[2J");
    }

    #[test]
    fn an_entry_has_a_few_lines_at_the_most_and_none_is_too_wide() {
        let words = "word ".repeat(400);
        let lines = wrapped(&words, 3);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS - MARGIN));
        assert!(lines.last().is_some_and(|last| last.ends_with('…')));
        assert_eq!(wrapped(&"x".repeat(400), 3).len(), 1);
    }

    #[test]
    fn a_refusal_at_the_door_is_shown_with_its_reason() {
        let refusal = Refusal::new(RefusalReason::UnsafePath, "The path is unsafe.");
        let shown = Explanation::at_the_door("GET".to_owned(), "/a//b".to_owned(), &refusal).to_string();
        assert_eq!(
            shown,
            "GET /a//b\n\nnow         refuse: sentrybox; detail=unsafe-path\nwhy         The path is unsafe.\n"
        );
    }

    #[test]
    fn the_end_of_a_window_is_shown_as_a_time_of_day() {
        assert_eq!(time_of_day(1_800_000_000), "08:00:00 UTC");
    }
}
