//! Cuts lists into pages, and names their neighbours in `Link` as Sentry does.
//!
//! Three forms of cursor: by date (`1672711200000:0:0`, milliseconds and a place among equals), by page
//! (`100:1:0`, page size and page number) and by row (`0:100:0`).
//!
//! Invariant: `Link` is one field with two members, previous then next, on every page, the empty one too.
//! Not here: which list has which form (`sandbox::reads`).

use std::ops::Range;

use crate::sandbox::failure::Failure;
use crate::sandbox::query::Query;

/// Most items of a page, and the default.
const LARGEST_PAGE: usize = 100;

/// How a list is cut.
#[derive(Debug, Clone)]
pub enum Order {
    /// By a date in milliseconds, newest first: one per item.
    Date(Vec<i64>),
    /// By page number: the count of items.
    Page(usize),
    /// By row: the count of items.
    Row(usize),
}

impl Order {
    /// Returns the parameter that holds the size of a page.
    const fn size_name(&self) -> &'static str {
        match self {
            Self::Date(_) | Self::Page(_) => "per_page",
            Self::Row(_) => "limit",
        }
    }
}

/// A page of a list, and its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    rows: Range<usize>,
    previous: Neighbour,
    next: Neighbour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    cursor: Cursor,
    has_results: bool,
}

/// `value:offset:is_prev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cursor {
    value: i64,
    offset: i64,
    is_previous: bool,
}

impl Page {
    /// Returns the page that a query asks for.
    pub fn of(order: &Order, query: &Query) -> Result<Self, Failure> {
        let size = page_size(query, order.size_name())?;
        let cursor = query.last("cursor").filter(|text| !text.is_empty());
        let cursor = cursor.map(Cursor::parse).transpose()?;
        match order {
            Order::Date(dates) => Ok(by_date(dates, cursor, size)),
            Order::Page(total) => by_page(*total, cursor.unwrap_or_default(), size),
            Order::Row(total) => by_row(*total, cursor.unwrap_or_default(), size),
        }
    }

    /// Returns which items are on the page.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Returns the value of `Link` for a page of the list at `url`.
    pub fn link(&self, url: &str, query: &Query) -> String {
        let parameters = query.link_form();
        let member = |relation: &str, neighbour: Neighbour| {
            let cursor = neighbour.cursor.text();
            let results = neighbour.has_results;
            format!(
                "<{url}?{parameters}&cursor={cursor}>; rel=\"{relation}\"; results=\"{results}\"; \
                 cursor=\"{cursor}\""
            )
        };
        format!("{}, {}", member("previous", self.previous), member("next", self.next))
    }
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Failure> {
        let invalid = || Failure::Invalid("Invalid cursor parameter.".to_owned());
        let mut parts = text.rsplitn(3, ':');
        let mut number = || parts.next().and_then(whole);
        match (number(), number(), number()) {
            (Some(is_previous), Some(offset), Some(value)) => {
                Ok(Self { value, offset, is_previous: is_previous != 0 })
            }
            _ => Err(invalid()),
        }
    }

    fn text(self) -> String {
        format!("{}:{}:{}", self.value, self.offset, u8::from(self.is_previous))
    }

    fn forward(value: i64, offset: usize) -> Self {
        Self { value, offset: signed(offset), is_previous: false }
    }

    fn backward(value: i64, offset: usize) -> Self {
        Self { value, offset: signed(offset), is_previous: true }
    }
}

fn whole(text: &str) -> Option<i64> {
    let digits = text.split_once('.').map_or(text, |(whole, _)| whole);
    digits.parse().ok()
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn page_size(query: &Query, name: &str) -> Result<usize, Failure> {
    let Some(text) = query.last(name).filter(|text| !text.is_empty()) else {
        return Ok(LARGEST_PAGE);
    };
    match text.parse::<usize>() {
        Ok(0) | Err(_) => Err(Failure::Invalid(format!("Invalid {name} parameter."))),
        Ok(size) if size > LARGEST_PAGE => {
            Err(Failure::Invalid(format!("Invalid {name} value. Cannot exceed {LARGEST_PAGE}.")))
        }
        Ok(size) => Ok(size),
    }
}

fn by_date(dates: &[i64], cursor: Option<Cursor>, size: usize) -> Page {
    let place = cursor.map_or(0, |cursor| {
        let first = dates.partition_point(|date| *date > cursor.value);
        first.saturating_add(usize::try_from(cursor.offset).unwrap_or(0)).min(dates.len())
    });
    let backward = cursor.is_some_and(|cursor| cursor.is_previous);
    let rows = if backward {
        place.saturating_sub(size)..place
    } else {
        place..place.saturating_add(size).min(dates.len())
    };
    let asked = cursor.unwrap_or_default();
    let (value, offset) = standing(dates, rows.start).unwrap_or((asked.value, 0));
    let previous = Neighbour { cursor: Cursor::backward(value, offset), has_results: rows.start > 0 };
    Page { previous, next: next_by_date(dates, asked, &rows), rows }
}

fn next_by_date(dates: &[i64], asked: Cursor, rows: &Range<usize>) -> Neighbour {
    if let Some((value, offset)) = standing(dates, rows.end) {
        return Neighbour { cursor: Cursor::forward(value, offset), has_results: true };
    }
    // The last page's next starts behind its last item: whoever polls it sees what is added there.
    let last = rows.end.checked_sub(1).and_then(|last| standing(dates, last));
    let (value, offset) = last.map_or((asked.value, 0), |(value, offset)| (value, offset + 1));
    Neighbour { cursor: Cursor::forward(value, offset), has_results: false }
}

/// Returns the date of the item at `index`, and its place among the items of the same date.
fn standing(dates: &[i64], index: usize) -> Option<(i64, usize)> {
    let date = *dates.get(index)?;
    Some((date, index - dates.partition_point(|other| *other > date)))
}

fn by_page(total: usize, cursor: Cursor, size: usize) -> Result<Page, Failure> {
    let start = row(cursor.offset.saturating_mul(cursor.value))?.min(total);
    let end = start.saturating_add(size).min(total);
    let (value, page) = (signed(size), cursor.offset);
    let neighbour = |offset: i64, is_previous: bool, has_results: bool| Neighbour {
        cursor: Cursor { value, offset, is_previous },
        has_results,
    };
    Ok(Page {
        rows: start..end,
        previous: neighbour(page.saturating_sub(1), true, page > 0),
        next: neighbour(page.saturating_add(1), false, end < total),
    })
}

fn by_row(total: usize, cursor: Cursor, size: usize) -> Result<Page, Failure> {
    let start = row(cursor.offset)?.min(total);
    let end = start.saturating_add(size).min(total);
    let previous = Cursor::backward(0, start.saturating_sub(size));
    Ok(Page {
        rows: start..end,
        previous: Neighbour { cursor: previous, has_results: start > 0 },
        next: Neighbour { cursor: Cursor::forward(0, start.saturating_add(size)), has_results: end < total },
    })
}

fn row(number: i64) -> Result<usize, Failure> {
    usize::try_from(number).map_err(|_| Failure::Invalid("Pagination offset cannot be negative".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NEWEST: i64 = 1_673_071_200_000;

    fn check(order: &Order, query: &str, expected: (Range<usize>, &str, bool, &str, bool)) {
        let page = Page::of(order, &Query::parse(query)).unwrap();
        let (rows, previous, has_previous, next, has_next) = expected;
        assert_eq!(page.rows, rows, "{query}");
        assert_eq!(
            (page.previous.cursor.text().as_str(), page.previous.has_results),
            (previous, has_previous)
        );
        assert_eq!((page.next.cursor.text().as_str(), page.next.has_results), (next, has_next));
    }

    fn organizations() -> Order {
        Order::Date((0..150).map(|back| NEWEST - back * HOUR).collect())
    }

    #[test]
    fn pages_by_date_have_the_cursors_of_a_real_server() {
        let first = (0..100, "1673071200000:0:1", false, "1672711200000:0:0", true);
        let second = (100..150, "1672711200000:0:1", true, "1672534800000:1:0", false);
        check(&organizations(), "", first.clone());
        check(&organizations(), "cursor=", first.clone());
        check(&organizations(), "&cursor=1672711200000:0:0", second);
        check(&organizations(), "cursor=1672711200000%3A0%3A1", first);
        let third = (0..30, "1673071200000:0:1", false, "1672963200000:0:0", true);
        check(&organizations(), "per_page=30", third);
    }

    #[test]
    fn behind_the_last_page_is_an_empty_one() {
        let behind = (150..150, "1672534800000:0:1", true, "1672534800000:1:0", false);
        check(&organizations(), "cursor=1672534800000:1:0", behind);
        check(&Order::Date(Vec::new()), "", (0..0, "0:0:1", false, "0:0:0", false));
    }

    #[test]
    fn equal_dates_are_told_apart_by_their_place() {
        let order = Order::Date(vec![5, 5, 5, 5, 4]);
        check(&order, "per_page=3", (0..3, "5:0:1", false, "5:3:0", true));
        check(&order, "per_page=3&cursor=5:3:0", (3..5, "5:3:1", true, "4:1:0", false));
        check(&order, "per_page=3&cursor=5:3:1", (0..3, "5:0:1", false, "5:3:0", true));
    }

    #[test]
    fn pages_by_number_and_by_row_have_the_cursors_of_a_real_server() {
        check(&Order::Page(120), "", (0..100, "100:-1:1", false, "100:1:0", true));
        check(&Order::Page(120), "cursor=100:1:0", (100..120, "100:0:1", true, "100:2:0", false));
        check(&Order::Page(120), "per_page=5&cursor=5:0:1", (0..5, "5:-1:1", false, "5:1:0", true));
        check(&Order::Row(120), "cursor=0:100:0", (100..120, "0:0:1", true, "0:200:0", false));
    }

    #[test]
    fn bad_parameters_are_refused_in_sentrys_words() {
        for (query, detail) in [
            ("cursor=bad", "Invalid cursor parameter."),
            ("cursor=1:x:0", "Invalid cursor parameter."),
            ("per_page=1000", "Invalid per_page value. Cannot exceed 100."),
            ("per_page=x", "Invalid per_page parameter."),
            ("cursor=100:-1:1", "Pagination offset cannot be negative"),
        ] {
            let failure = Page::of(&Order::Page(9), &Query::parse(query)).unwrap_err();
            assert_eq!(failure, Failure::Invalid(detail.to_owned()), "{query}");
        }
    }

    #[test]
    fn link_has_the_form_of_a_real_server() {
        let query = Query::parse("per_page=2&query=Organization&sortBy=projects");
        let page = Page::of(&Order::Page(150), &query).unwrap();
        assert_eq!(
            page.link("https://sentry.io/api/0/organizations/", &query),
            "<https://sentry.io/api/0/organizations/?per_page=2&query=Organization&sortBy=projects&cursor=2:-1:1>; \
             rel=\"previous\"; results=\"false\"; cursor=\"2:-1:1\", \
             <https://sentry.io/api/0/organizations/?per_page=2&query=Organization&sortBy=projects&cursor=2:1:0>; \
             rel=\"next\"; results=\"true\"; cursor=\"2:1:0\""
        );
        let page = Page::of(&Order::Page(0), &Query::default()).unwrap();
        assert!(
            page.link("https://sentry.io/x/", &Query::default())
                .starts_with("<https://sentry.io/x/?&cursor=100:-1:1>")
        );
    }
}
