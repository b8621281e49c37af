//! Draws a chart as SVG: lines or stacked areas over time, with axes that can be read.
//!
//! Invariants: as many points as columns, whatever was counted; colours are classes, so that the style sheet decides them, in
//! light and dark; a text beside the picture says the same. Not here: what is drawn (`admin::dashboard::panels`).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::dashboard::html::escaped;

/// Size of the picture, in its own units.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 170.0;

/// Where the drawing begins and ends.
const LEFT: f64 = 46.0;
const RIGHT: f64 = WIDTH - 6.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = HEIGHT - 20.0;

/// How many lines divide the height.
const DIVISIONS: u32 = 4;

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events per second.
    PerSecond,
    /// A share, from 0 to 1.
    Share,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// Writes a number with its unit, short.
    pub fn write(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 100.0 => format!("{value:.0}/s"),
            Self::PerSecond if value >= 10.0 => format!("{}/s", rounded(value, 1)),
            Self::PerSecond => format!("{}/s", rounded(value, 2)),
            Self::Share => format!("{:.0} %", value * 100.0),
            Self::Seconds if value >= 1.0 => format!("{} s", rounded(value, 1)),
            Self::Seconds if value >= 0.01 => format!("{:.0} ms", value * 1e3),
            Self::Seconds if value >= 0.001 => format!("{} ms", rounded(value * 1e3, 1)),
            Self::Seconds => format!("{:.0} µs", value * 1e6),
        }
    }
}

/// Writes a number with so many decimals at the most, and none that say nothing.
fn rounded(value: f64, decimals: usize) -> String {
    let written = format!("{value:.decimals$}");
    written.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How the series stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each by itself.
    Lines,
    /// One upon the other.
    Stacked,
    /// Each by itself, over a logarithmic height.
    Logarithmic,
}

/// One series: its name, its class in the style sheet, and a value for each column where there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What is read beside it.
    pub name: &'static str,
    /// Its class.
    pub class: &'static str,
    /// Its values.
    pub values: Vec<Option<f64>>,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// In which unit.
    pub unit: Unit,
    /// In which form.
    pub form: Form,
    /// The series; of stacked ones the lowest first.
    pub series: Vec<Series>,
    /// How much time it shows.
    pub span: Duration,
    /// Until when.
    pub until: SystemTime,
}

impl Chart {
    /// Draws the chart with its title and its legend.
    pub fn draw(&self) -> String {
        let stacked = self.stacked();
        let scale = Scale::of(self.unit, self.form, &stacked);
        let title = escaped(self.title);
        let mut picture = format!(
            "<figure class=\"card chart\"><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}: {}\">",
            escaped(&self.said())
        );
        self.draw_axes(&mut picture, &scale);
        let mut below: Option<&Vec<Option<f64>>> = None;
        for (series, values) in self.series.iter().zip(&stacked) {
            let path = match self.form {
                Form::Stacked => scale.area(values, below),
                Form::Lines | Form::Logarithmic => scale.line(values),
            };
            let shape = if self.form == Form::Stacked { "area" } else { "line" };
            // Writing to a `String` cannot fail.
            let _ = write!(picture, "<path class=\"{shape} {}\" d=\"{path}\"/>", series.class);
            below = Some(values);
        }
        picture.push_str("</svg><ul class=\"legend\">");
        for series in &self.series {
            let last = series.values.iter().rev().flatten().next();
            let last = last.map_or_else(|| "–".to_owned(), |value| self.unit.write(*value));
            let _ = write!(
                picture,
                "<li><span class=\"swatch {}\"></span>{} <b>{last}</b></li>",
                series.class,
                escaped(series.name)
            );
        }
        picture.push_str("</ul></figure>");
        picture
    }

    /// Says in words what a reader of the picture sees first: the latest value and the highest one.
    fn said(&self) -> String {
        let told = self.series.iter().map(|series| {
            let values = series.values.iter().flatten();
            let most = values.clone().copied().fold(f64::NEG_INFINITY, f64::max);
            match values.last() {
                Some(last) => {
                    let (last, most) = (self.unit.write(*last), self.unit.write(most));
                    format!("{} now {last}, at most {most}", series.name)
                }
                None => format!("{} nothing yet", series.name),
            }
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Returns the heights at which the series are drawn.
    fn stacked(&self) -> Vec<Vec<Option<f64>>> {
        let mut heights: Vec<Vec<Option<f64>>> = Vec::new();
        for series in &self.series {
            let under = heights.last().filter(|_| self.form == Form::Stacked);
            let height = |(place, value): (usize, &Option<f64>)| {
                let under = under.and_then(|under| under.get(place).copied().flatten()).unwrap_or(0.0);
                value.map(|value| value + under)
            };
            heights.push(series.values.iter().enumerate().map(height).collect());
        }
        heights
    }

    fn draw_axes(&self, picture: &mut String, scale: &Scale) {
        for (height, text) in scale.marks(self.unit) {
            let _ = write!(
                picture,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{height:.1}\" y2=\"{height:.1}\"/>\
                 <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 4.0,
                height + 3.5,
                escaped(&text)
            );
        }
        for (part, anchor, zone) in [(0, "start", ""), (1, "middle", ""), (2, "end", " UTC")] {
            let at = self.until.checked_sub(self.span * (2 - part) / 2).unwrap_or(UNIX_EPOCH);
            let _ = write!(
                picture,
                "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}{zone}</text>",
                LEFT + (RIGHT - LEFT) * f64::from(part) / 2.0,
                HEIGHT - 5.0,
                time_of_day(at)
            );
        }
    }
}

/// Writes the time of day, UTC, to the minute.
pub fn time_of_day(at: SystemTime) -> String {
    let minutes = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// From values to heights.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    least: f64,
    most: f64,
    form: Form,
}

impl Scale {
    fn of(unit: Unit, form: Form, heights: &[Vec<Option<f64>>]) -> Self {
        let values = heights.iter().flatten().flatten().copied();
        let most = values.clone().fold(0.0, f64::max);
        match (unit, form) {
            (_, Form::Logarithmic) => {
                let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { power_below(least) } else { 0.000_1 };
                Self { least, most: power_below(most).max(least) * 10.0, form }
            }
            (Unit::Share, Form::Lines | Form::Stacked) => Self { least: 0.0, most: 1.0, form },
            (Unit::PerSecond | Unit::Seconds, Form::Lines | Form::Stacked) => {
                Self { least: 0.0, most: round_above(most), form }
            }
        }
    }

    fn height(&self, value: f64) -> f64 {
        let share = match self.form {
            Form::Logarithmic => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
            Form::Lines | Form::Stacked => (value - self.least) / (self.most - self.least),
        };
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
    }

    /// Returns the heights that are marked, and what stands beside each.
    fn marks(&self, unit: Unit) -> Vec<(f64, String)> {
        let mark = |value: f64| (self.height(value), unit.write(value));
        match self.form {
            Form::Logarithmic => {
                let powers = std::iter::successors(Some(self.least), |power| Some(power * 10.0));
                powers.take_while(|power| *power <= self.most * 1.01).map(mark).collect()
            }
            Form::Lines | Form::Stacked => {
                (0..=DIVISIONS).map(|part| mark(self.most * f64::from(part) / f64::from(DIVISIONS))).collect()
            }
        }
    }

    fn points<'a>(
        &'a self,
        values: &'a [Option<f64>],
    ) -> impl DoubleEndedIterator<Item = Option<(f64, f64)>> + 'a {
        let last = u32::try_from(values.len().saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        let step = (RIGHT - LEFT) / f64::from(last);
        values.iter().enumerate().map(move |(place, value)| {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            value.map(|value| (LEFT + step * f64::from(place), self.height(value)))
        })
    }

    /// Returns a line through the values, with gaps where there are none. Each stroke begins with a point, which is seen
    /// even where nothing follows.
    fn line(&self, values: &[Option<f64>]) -> String {
        let mut path = String::new();
        let mut is_drawing = false;
        for point in self.points(values) {
            let _ = match point {
                Some((x, y)) if is_drawing => write!(path, "L{x:.1} {y:.1}"),
                Some((x, y)) => write!(path, "M{x:.1} {y:.1}h0"),
                None => Ok(()),
            };
            is_drawing = point.is_some();
        }
        path
    }

    /// Returns the area between the values and those below; what is not there has no height.
    fn area(&self, values: &[Option<f64>], below: Option<&Vec<Option<f64>>>) -> String {
        let known = |value: &Option<f64>| Some(value.unwrap_or(0.0));
        let upper: Vec<_> = values.iter().map(known).collect();
        let lower =
            below.map_or_else(|| vec![Some(0.0); upper.len()], |below| below.iter().map(known).collect());
        let mut path = String::new();
        let around = self.points(&upper).chain(self.points(&lower).rev()).flatten();
        for (number, (x, y)) in around.enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" });
        }
        path.push('Z');
        path
    }
}

/// Returns the next number above that reads well: 1, 2, 4 or 8 times a power of ten.
fn round_above(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = power_below(value);
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| value <= *round).unwrap_or(power * 10.0)
}

/// Returns the power of ten that is not above.
fn power_below(value: f64) -> f64 {
    if value > 0.0 { 10f64.powf(value.log10().floor()) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(form: Form, unit: Unit, values: &[Vec<Option<f64>>]) -> Chart {
        let series =
            values.iter().map(|values| Series { name: "a <b>", class: "one", values: values.clone() });
        Chart {
            title: "Requests & more",
            unit,
            form,
            series: series.collect(),
            span: Duration::from_hours(1),
            until: UNIX_EPOCH + Duration::from_hours(13),
        }
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_was_counted() {
        let values = vec![Some(0.0), Some(8.0), None, Some(4.0)];
        let drawn = chart(Form::Lines, Unit::PerSecond, &[values]).draw();
        assert!(drawn.contains("d=\"M46.0 150.0h0L142.0 8.0M334.0 79.0h0\""), "{drawn}");
        assert!(drawn.contains(">12:00</text>") && drawn.contains(">13:00 UTC</text>"));
    }

    #[test]
    fn what_is_stacked_stands_upon_the_one_below() {
        let values = [vec![Some(1.0), Some(1.0)], vec![Some(1.0), None]];
        let drawn = chart(Form::Stacked, Unit::PerSecond, &values).draw();
        assert!(drawn.contains("d=\"M46.0 79.0L334.0 79.0L334.0 150.0L46.0 150.0Z\""), "{drawn}");
        assert!(drawn.contains("d=\"M46.0 8.0L334.0 150.0L334.0 79.0L46.0 79.0Z\""), "{drawn}");
    }

    #[test]
    fn it_says_in_words_what_it_shows_and_escapes_what_it_is_called() {
        let drawn = chart(Form::Lines, Unit::Share, &[vec![Some(0.9), Some(0.5)], vec![None]]).draw();
        assert!(
            drawn.contains("aria-label=\"Requests &amp; more: a &lt;b&gt; now 50 %, at most 90 %"),
            "{drawn}"
        );
        assert!(drawn.contains("a &lt;b&gt; nothing yet") && !drawn.contains("<b>\""), "{drawn}");
    }

    #[test]
    fn short_and_long_durations_share_a_chart() {
        let values = vec![Some(0.000_06), Some(0.4)];
        let drawn = chart(Form::Logarithmic, Unit::Seconds, &[values]).draw();
        for mark in ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"] {
            assert!(drawn.contains(&format!(">{mark}</text>")), "{mark} {drawn}");
        }
    }

    #[test]
    fn a_number_has_no_decimals_that_say_nothing() {
        let rates = [0.0, 0.25, 7.5, 40.0, 12.34, 1234.5].map(|value| Unit::PerSecond.write(value));
        assert_eq!(rates, ["0/s", "0.25/s", "7.5/s", "40/s", "12.3/s", "1234/s"]);
        let times = [0.000_05, 0.0024, 0.02, 1.0, 60.0].map(|value| Unit::Seconds.write(value));
        assert_eq!(times, ["50 µs", "2.4 ms", "20 ms", "1 s", "60 s"]);
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        for form in [Form::Lines, Form::Stacked, Form::Logarithmic] {
            for unit in [Unit::PerSecond, Unit::Share, Unit::Seconds] {
                let drawn = chart(form, unit, &[vec![None; 3], Vec::new()]).draw();
                assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
            }
        }
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (value, round) in [(0.0, 1.0), (0.3, 0.4), (1.0, 1.0), (7.0, 8.0), (9.0, 10.0), (1234.0, 2000.0)]
        {
            assert!((round_above(value) - round).abs() < round / 1e6, "{value}");
        }
    }
}
