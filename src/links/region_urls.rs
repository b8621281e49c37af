//! Points the region URLs in JSON bodies back at this proxy: finds their places once, puts any base in later.
//!
//! Sentry tells clients in bodies where an organization lives (`links.regionUrl`) and which regions there are
//! (`/api/0/users/me/regions/`), and clients go there directly. [`scan`] runs when a body has come, [`apply`] when
//! it is sent. The same scan says which organizations the body speaks of, and where they live.
//!
//! Invariants: every byte outside the splices stays as it is; what was JSON stays JSON; a body that is not as
//! expected has no splices. Linear in the body, and no nesting is deep enough to overflow the stack.
//! Not here: which regions are reached through this proxy (`regions`), what is made of what a body says
//! (`organizations`), other URLs in bodies: `organizationUrl`, `permalink` and `avatarUrl` are for people.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::links::split_origin;

/// Which bodies hold region URLs, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegionUrlShape {
    /// One organization: `{"links": {"regionUrl": "…"}}`.
    Organization,
    /// A list of organizations, or with `owner=1` of `{"organization": {…}}`.
    OrganizationList,
    /// The regions of a user: `{"regions": [{"name": "…", "url": "…"}]}`.
    Regions,
}

/// Returns the shape of what is found under a path, which comes normalized.
pub fn shape_of(path: &str) -> Option<RegionUrlShape> {
    let mut segments = path.strip_prefix("/api/0/")?.split('/');
    let four = [segments.next(), segments.next(), segments.next(), segments.next()];
    match four {
        [Some("organizations"), Some(""), None, _] => Some(RegionUrlShape::OrganizationList),
        // Upstream decodes `%2F` before it routes: the path may be about something else than its segments say.
        [Some("organizations"), Some(name), Some(""), None] if !name.is_empty() && !name.contains("%2F") => {
            Some(RegionUrlShape::Organization)
        }
        [Some("users"), Some("me"), Some("regions"), Some("")] if segments.next().is_none() => {
            Some(RegionUrlShape::Regions)
        }
        _ => None,
    }
}

/// A place in a body where something else goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// The bytes that go.
    pub range: Range<usize>,
    /// What comes in their place.
    pub with: SpliceWith,
}

/// What comes in the place of a splice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceWith {
    /// The public base, `scheme://authority`.
    Base,
    /// Nothing: a region that would list the base once more.
    Nothing,
}

/// What a body says of regions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where region URLs stand that are to point back here, in order and without overlap.
    pub splices: Vec<Splice>,
    /// Which organizations it speaks of.
    pub organizations: Vec<Sighting>,
    /// The URLs of the regions that it lists.
    pub regions: Vec<String>,
}

/// An organization that a body speaks of, as it is spelled there.
#[derive(Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Sentry's number.
    pub id: String,
    /// Its name in URLs.
    pub slug: String,
    /// The URL of the region where it lives, if that is said.
    pub region_url: Option<String>,
}

/// Returns what a JSON body says of regions: nothing if it is not as expected.
///
/// `reachable` says whether a request for the region of a URL gets there through this proxy.
pub fn scan(body: &[u8], shape: RegionUrlShape, reachable: &dyn Fn(&str) -> bool) -> Scan {
    let Ok(text) = str::from_utf8(body) else { return Scan::default() };
    let mut scanner = Scanner { body: text, reachable, found: Scan::default() };
    match shape {
        RegionUrlShape::Organization => scanner.organization(text),
        RegionUrlShape::OrganizationList => {
            for element in elements(text) {
                scanner.list_element(element.get());
            }
        }
        RegionUrlShape::Regions => scanner.regions(),
    }
    scanner.found
}

/// Returns a body with `base` put in. `base` is `scheme://authority`, which holds nothing that JSON escapes.
pub fn apply(body: &[u8], splices: &[Splice], base: &str) -> Vec<u8> {
    let mut sent = Vec::with_capacity(body.len() + splices.len() * base.len());
    let mut copied = 0;
    for splice in splices {
        sent.extend_from_slice(body.get(copied..splice.range.start).unwrap_or_default());
        match splice.with {
            SpliceWith::Base => sent.extend_from_slice(base.as_bytes()),
            SpliceWith::Nothing => {}
        }
        copied = splice.range.end;
    }
    sent.extend_from_slice(body.get(copied..).unwrap_or_default());
    sent
}

/// A scan under way.
struct Scanner<'a> {
    body: &'a str,
    reachable: &'a dyn Fn(&str) -> bool,
    found: Scan,
}

impl<'a> Scanner<'a> {
    fn organization(&mut self, organization: &'a str) {
        let [id, slug, links] = members(organization, ["id", "slug", "links"]);
        self.facts(id, slug, links);
    }

    fn list_element(&mut self, element: &'a str) {
        let [id, slug, links, owned] = members(element, ["id", "slug", "links", "organization"]);
        match owned {
            Some(owned) if links.is_none() => self.organization(owned.get()),
            Some(_) | None => self.facts(id, slug, links),
        }
    }

    /// Notes what an organization's own members say.
    fn facts(&mut self, id: Option<&'a RawValue>, slug: Option<&'a RawValue>, links: Option<&'a RawValue>) {
        let [region_url] = links.map_or([None], |links| members(links.get(), ["regionUrl"]));
        let splice = region_url.and_then(|url| self.origin_of(url.get()));
        self.found.splices.extend(splice);
        if let (Some(id), Some(slug)) = (id.and_then(text), slug.and_then(text)) {
            self.found.organizations.push(Sighting { id, slug, region_url: region_url.and_then(text) });
        }
    }

    /// Keeps the first reachable region, which gets the base, and takes out the others, each with the comma
    /// before it: none of them can be the first of the list.
    fn regions(&mut self) {
        let [regions] = members(self.body, ["regions"]);
        let mut end_of_previous = 0;
        for region in regions.map(|regions| elements(regions.get())).unwrap_or_default() {
            let Some(start) = self.offset_of(region.get()) else { return };
            let end = start + region.get().len();
            let [url] = members(region.get(), ["url"]);
            self.found.regions.extend(url.and_then(text));
            match url.and_then(|url| self.origin_of(url.get())) {
                Some(origin) if self.found.splices.is_empty() => self.found.splices.push(origin),
                Some(_) => {
                    let splice = Splice { range: end_of_previous..end, with: SpliceWith::Nothing };
                    self.found.splices.push(splice);
                }
                None => {}
            }
            end_of_previous = end;
        }
    }

    /// Returns the splice for the scheme and authority of a JSON string that holds the URL of a reachable region.
    fn origin_of(&self, string: &str) -> Option<Splice> {
        let url: String = serde_json::from_str(string).ok()?;
        let (_, path) = split_origin(url.as_bytes())?;
        let origin = url.get(..url.len() - path.len()).filter(|origin| origin.is_ascii())?;
        if !(self.reachable)(&url) {
            return None;
        }
        let start = self.offset_of(string)? + "\"".len();
        let length = spelled_length(string.strip_prefix('"')?, origin.len());
        Some(Splice { range: start..start + length, with: SpliceWith::Base })
    }

    /// Returns where a part of the body begins.
    fn offset_of(&self, part: &str) -> Option<usize> {
        part.as_ptr().addr().checked_sub(self.body.as_ptr().addr())
    }
}

/// Returns what a JSON string holds; `None` for anything else.
fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Returns how many bytes the first `count` characters of a JSON string's content take, all of them ASCII.
fn spelled_length(content: &str, count: usize) -> usize {
    let mut bytes = content.bytes();
    for _ in 0..count {
        // "Any character may be escaped", as in `\/` or `\u002f` (RFC 8259 §7).
        let digits = match bytes.next() {
            Some(b'\\') if bytes.next() == Some(b'u') => 4,
            Some(_) | None => 0,
        };
        (0..digits).for_each(|_| _ = bytes.next());
    }
    content.len() - bytes.len()
}

/// Returns the elements of a JSON array, as they are spelled; none if it is no array.
fn elements(array: &str) -> Vec<&RawValue> {
    serde_json::from_str(array).unwrap_or_default()
}

/// Returns members of a JSON object, as they are spelled; of each name the last one. None of what is no object.
fn members<'a, const N: usize>(object: &'a str, names: [&str; N]) -> [Option<&'a RawValue>; N] {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    match deserializer.deserialize_map(Members(names)) {
        Ok(found) if deserializer.end().is_ok() => found,
        Ok(_) | Err(_) => [None; N],
    }
}

/// Picks members out of an object.
struct Members<'a, const N: usize>([&'a str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(place) = map.next_key_seed(PlaceOf(&self.0))? {
            match place.and_then(|place| found.get_mut(place)) {
                Some(member) => *member = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Finds a member's name among those that are wanted, without keeping it.
struct PlaceOf<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for PlaceOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for PlaceOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const BASE: &str = "http://127.0.0.1:9000";

    fn is_sentry(url: &str) -> bool {
        ["https://sentry.io", "https://us.sentry.io", "https://de.sentry.io"].iter().any(|origin| {
            url.strip_prefix(origin).is_some_and(|path| path.is_empty() || path.starts_with('/'))
        })
    }

    fn rewritten(body: &str, shape: RegionUrlShape) -> String {
        let Scan { splices, .. } = scan(body.as_bytes(), shape, &is_sentry);
        String::from_utf8(apply(body.as_bytes(), &splices, BASE)).unwrap()
    }

    #[track_caller]
    fn check(shape: RegionUrlShape, body: &str, expected: &str) {
        assert_eq!(rewritten(body, shape), expected);
    }

    #[track_caller]
    fn check_left_alone(shape: RegionUrlShape, body: &str) {
        assert_eq!(scan(body.as_bytes(), shape, &|_| true).splices, [], "{body}");
    }

    #[test]
    fn three_paths_have_a_shape() {
        let shapes = [
            ("/api/0/organizations/", Some(RegionUrlShape::OrganizationList)),
            ("/api/0/organizations/acme/", Some(RegionUrlShape::Organization)),
            ("/api/0/organizations/4711/", Some(RegionUrlShape::Organization)),
            ("/api/0/users/me/regions/", Some(RegionUrlShape::Regions)),
            ("/api/0/organizations", None),
            ("/api/0/organizations/acme", None),
            ("/api/0/organizations//", None),
            ("/api/0/organizations/acme%2Fprojects%2Fweb/", None),
            ("/api/0/organizations%2Facme/", None),
            ("/api/0/organizations/acme/projects/", None),
            ("/api/0/users/me/regions", None),
            ("/api/0/users/me/regions/x/", None),
            ("/api/0/users/me/", None),
            ("/api/0/", None),
            ("/", None),
        ];
        for (path, expected) in shapes {
            assert_eq!(shape_of(path), expected, "{path}");
        }
    }

    #[test]
    fn an_organization_keeps_everything_but_its_region_url() {
        check(
            RegionUrlShape::Organization,
            r#"{"id":"3","slug":"org-002","avatar":{"avatarUrl":"https://us.sentry.io/a"},"links":{"organizationUrl":"https://us.sentry.io","regionUrl":"https://us.sentry.io"},"isDefault":false}"#,
            r#"{"id":"3","slug":"org-002","avatar":{"avatarUrl":"https://us.sentry.io/a"},"links":{"organizationUrl":"https://us.sentry.io","regionUrl":"http://127.0.0.1:9000"},"isDefault":false}"#,
        );
    }

    #[test]
    fn every_organization_of_a_list_is_rewritten() {
        check(
            RegionUrlShape::OrganizationList,
            r#"[{"id":"1","links":{"regionUrl":"https://us.sentry.io"}},{"id":"2","links":{"regionUrl":"https://elsewhere.example"}},{"id":"3"},{"id":"4","links":null},null,5,{"links":{"regionUrl":"https://de.sentry.io/"}}]"#,
            r#"[{"id":"1","links":{"regionUrl":"http://127.0.0.1:9000"}},{"id":"2","links":{"regionUrl":"https://elsewhere.example"}},{"id":"3"},{"id":"4","links":null},null,5,{"links":{"regionUrl":"http://127.0.0.1:9000/"}}]"#,
        );
    }

    #[test]
    fn a_list_of_owned_organizations_is_rewritten() {
        check(
            RegionUrlShape::OrganizationList,
            r#"[{"organization":{"links":{"regionUrl":"https://us.sentry.io"}},"singleOwner":true}]"#,
            r#"[{"organization":{"links":{"regionUrl":"http://127.0.0.1:9000"}},"singleOwner":true}]"#,
        );
    }

    #[test]
    fn white_space_stays() {
        check(
            RegionUrlShape::OrganizationList,
            " [ {\n \"links\" :\t{ \"regionUrl\" : \"https://us.sentry.io\" } } ,\r\n{ } ] \n",
            " [ {\n \"links\" :\t{ \"regionUrl\" : \"http://127.0.0.1:9000\" } } ,\r\n{ } ] \n",
        );
    }

    #[test]
    fn escapes_are_understood() {
        check(
            RegionUrlShape::Organization,
            r#"{"\u006cinks":{"region\u0055rl":"\u0068ttps:\/\/us\u002Esentry.io\/é\/"}}"#,
            r#"{"\u006cinks":{"region\u0055rl":"http://127.0.0.1:9000\/é\/"}}"#,
        );
    }

    #[test]
    fn organizations_elsewhere_in_the_body_are_left_alone() {
        check_left_alone(
            RegionUrlShape::Organization,
            r#"{"projects":[{"organization":{"links":{"regionUrl":"https://us.sentry.io"}}}],"regionUrl":"https://us.sentry.io"}"#,
        );
        check_left_alone(
            RegionUrlShape::Organization,
            r#"{"organization":{"links":{"regionUrl":"https://us.sentry.io"}}}"#,
        );
        check_left_alone(
            RegionUrlShape::OrganizationList,
            r#"[[{"links":{"regionUrl":"https://us.sentry.io"}}]]"#,
        );
    }

    #[test]
    fn a_body_that_is_not_as_expected_has_no_splices() {
        for shape in [RegionUrlShape::Organization, RegionUrlShape::OrganizationList, RegionUrlShape::Regions]
        {
            for body in [
                "",
                "null",
                "[]",
                "{}",
                r#""https://us.sentry.io""#,
                r#"{"detail":"Not found"}"#,
                r#"{"links":[]}"#,
                r#"{"links":["https://us.sentry.io"]}"#,
                r#"{"links":{"regionUrl":null}}"#,
                r#"{"links":{"regionUrl":7}}"#,
                r#"{"links":{"regionUrl":""}}"#,
                r#"{"links":{"regionUrl":"/relative"}}"#,
                r#"{"links":{"regionUrl":"https://é.sentry.io"}}"#,
                r#"{"links":{"regionUrl":"https://us.sentry.io"}"#,
                r#"{"links":{"regionUrl":"https://us.sentry.io"}}x"#,
                r#"[{"links":{"regionUrl":"https://us.sentry.io"}}"#,
                r#"{"regions":{}}"#,
                r#"{"regions":[null,1,{"name":"us"},{"url":2}]}"#,
            ] {
                check_left_alone(shape, body);
            }
        }
        assert_eq!(
            scan(
                b"{\"links\":{\"regionUrl\":\"https://us.sentry.io\"},\"a\":\"\xff\"}",
                RegionUrlShape::Organization,
                &|_| true
            ),
            Scan::default()
        );
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let body = format!(r#"{{"deep":{deep},"links":{{"regionUrl":"https://us.sentry.io"}}}}"#);
        for shape in [RegionUrlShape::Organization, RegionUrlShape::OrganizationList, RegionUrlShape::Regions]
        {
            let _ = scan(deep.as_bytes(), shape, &is_sentry);
        }
        assert!(
            rewritten(&body, RegionUrlShape::Organization)
                .ends_with(r#""links":{"regionUrl":"http://127.0.0.1:9000"}}"#)
        );
    }

    #[test]
    fn the_regions_list_the_base_once() {
        check(
            RegionUrlShape::Regions,
            r#"{"regions":[{"name":"us","url":"https://us.sentry.io"},{"name":"de","url":"https://de.sentry.io"}]}"#,
            r#"{"regions":[{"name":"us","url":"http://127.0.0.1:9000"}]}"#,
        );
        check(
            RegionUrlShape::Regions,
            r#"{"regions": [ {"url": "https://us.sentry.io", "name": "us"} , {"url": "https://sentry.io"} , {"url": "https://de.sentry.io"} ], "x": 1}"#,
            r#"{"regions": [ {"url": "http://127.0.0.1:9000", "name": "us"} ], "x": 1}"#,
        );
    }

    #[test]
    fn regions_out_of_reach_keep_their_url() {
        check(
            RegionUrlShape::Regions,
            r#"{"regions":[{"name":"a","url":"https://a.example"},{"name":"us","url":"https://us.sentry.io"},{"name":"b","url":"https://b.example"},{"name":"de","url":"https://de.sentry.io"},{"name":"c","url":"https://c.example"}]}"#,
            r#"{"regions":[{"name":"a","url":"https://a.example"},{"name":"us","url":"http://127.0.0.1:9000"},{"name":"b","url":"https://b.example"},{"name":"c","url":"https://c.example"}]}"#,
        );
    }

    fn sighting(id: &str, slug: &str, region_url: Option<&str>) -> Sighting {
        Sighting { id: id.to_owned(), slug: slug.to_owned(), region_url: region_url.map(str::to_owned) }
    }

    /// Returns which organizations a body speaks of when no region is reached through this proxy.
    fn sightings(shape: RegionUrlShape, body: &str) -> Vec<Sighting> {
        let found = scan(body.as_bytes(), shape, &|_| false);
        assert_eq!(found.splices, []);
        found.organizations
    }

    #[test]
    fn the_organizations_of_a_body_are_told_with_their_region_whether_it_is_reached_or_not() {
        let us = Some("https://us.sentry.io");
        let one = r#"{"slug":"acme","id":"7","links":{"regionUrl":"https://us.sentry.io"}}"#;
        assert_eq!(sightings(RegionUrlShape::Organization, one), [sighting("7", "acme", us)]);
        let list = r#"[{"id":"7","slug":"acme","links":{"regionUrl":"https:\/\/us.sentry.io"}},{"id":"8","slug":"bob"},null,{"id":"9"}]"#;
        let expected = [sighting("7", "acme", us), sighting("8", "bob", None)];
        assert_eq!(sightings(RegionUrlShape::OrganizationList, list), expected);
        let owned = format!(r#"[{{"organization":{one},"singleOwner":true}}]"#);
        assert_eq!(sightings(RegionUrlShape::OrganizationList, &owned), [sighting("7", "acme", us)]);
    }

    #[test]
    fn what_is_no_organization_is_none() {
        for body in [
            r#"{"id":7,"slug":"acme"}"#,
            r#"{"id":"7","slug":null}"#,
            r#"{"projects":[{"organization":{"id":"7","slug":"acme"}}]}"#,
            r#"{"organization":{"id":"7","slug":"acme"}}"#,
            r#"{"id":"7","slug":"acme""#,
            r#"["id","7","slug","acme"]"#,
        ] {
            assert_eq!(sightings(RegionUrlShape::Organization, body), [], "{body}");
        }
    }

    #[test]
    fn the_last_member_of_a_name_counts_for_whoever_reads_it() {
        let body = r#"{"id":"1","slug":"a","links":{"regionUrl":"https://us.sentry.io"},"id":"2","links":{"regionUrl":"https://de.sentry.io","regionUrl":7}}"#;
        assert_eq!(sightings(RegionUrlShape::Organization, body), [sighting("2", "a", None)]);
    }

    #[test]
    fn the_regions_of_a_user_are_told() {
        let body = r#"{"regions":[{"name":"us","url":"https://us.sentry.io"},{"name":"x"},{"name":"y","url":"https://evil.example"}]}"#;
        let found = scan(body.as_bytes(), RegionUrlShape::Regions, &is_sentry);
        assert_eq!(found.regions, ["https://us.sentry.io", "https://evil.example"]);
        assert_eq!((found.splices.len(), found.organizations), (1, vec![]));
    }

    fn url() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("https://sentry.io".to_owned()),
            Just("https://us.sentry.io".to_owned()),
            Just("https://us.sentry.io/path".to_owned()),
            Just("https://elsewhere.example".to_owned()),
            ".{0,8}",
        ]
    }

    /// The text of a URL as it should read afterwards.
    fn expected(url: &str) -> String {
        let path =
            ["https://us.sentry.io", "https://sentry.io"].iter().find_map(|origin| url.strip_prefix(origin));
        path.filter(|_| is_sentry(url)).map_or_else(|| url.to_owned(), |path| format!("{BASE}{path}"))
    }

    fn organization(name: &str, url: &str) -> Value {
        json!({"name": name, "links": {"organizationUrl": url, "regionUrl": url}, "teams": [{"links": {"regionUrl": url}}]})
    }

    proptest! {
        #[test]
        fn organizations_differ_in_their_region_url_alone(organizations in vec((".{0,6}", url()), 0..5), is_pretty: bool) {
            let before: Value = organizations.iter().map(|(name, url)| organization(name, url)).collect();
            let text = if is_pretty { format!("{before:#}") } else { before.to_string() };
            let mut after = before;
            for (position, (_, url)) in organizations.iter().enumerate() {
                after[position]["links"]["regionUrl"] = json!(expected(url));
            }
            let rewritten = rewritten(&text, RegionUrlShape::OrganizationList);
            prop_assert_eq!(serde_json::from_str::<Value>(&rewritten).unwrap(), after);
        }

        #[test]
        fn regions_stay_json_and_name_the_base_at_most_once(urls in vec(url(), 0..6), is_pretty: bool) {
            let regions: Vec<_> = urls.iter().map(|url| json!({"name": url, "url": url})).collect();
            let before = json!({"regions": regions});
            let text = if is_pretty { format!("{before:#}") } else { before.to_string() };
            let first = urls.iter().position(|url| is_sentry(url));
            let kept: Vec<_> = urls
                .iter()
                .enumerate()
                .filter(|(position, url)| Some(*position) == first || !is_sentry(url))
                .map(|(_, url)| json!({"name": url, "url": expected(url)}))
                .collect();
            let rewritten = rewritten(&text, RegionUrlShape::Regions);
            prop_assert_eq!(serde_json::from_str::<Value>(&rewritten).unwrap(), json!({"regions": kept}));
        }

        #[test]
        fn splices_are_in_order_and_apart(body in r#"[\[\]{},:" a-z/\\]{0,60}"#, urls in vec(url(), 0..6)) {
            let regions = json!({"regions": urls.iter().map(|url| json!({"url": url})).collect::<Vec<_>>()}).to_string();
            for text in [body, regions] {
                for shape in [RegionUrlShape::Organization, RegionUrlShape::OrganizationList, RegionUrlShape::Regions] {
                    let Scan { splices, .. } = scan(text.as_bytes(), shape, &|_| true);
                    prop_assert!(splices.iter().all(|splice| splice.range.end <= text.len()));
                    prop_assert!(splices.is_sorted_by(|left, right| left.range.end <= right.range.start));
                }
            }
        }
    }
}
