//! Builds cache keys: who asks, which upstream, what target, in which variant ([RFC 9111 §2], §4.1).
//!
//! Targets are normalized so that equal spellings share a key (`sentry-api.md` §4.4): escapes that stand for
//! themselves are resolved, an empty `cursor=` is dropped, parameters are sorted by name, and every duplicate
//! keeps its place among its name's values. `%2F` and `/` stay two things in a path. Upstream is always sent the
//! client's own spelling; nothing here reaches the wire but [`Negotiation`].
//!
//! Invariants: no key exists without a partition, and keys of two partitions are never equal, whatever their
//! hashes; hashes are keyed, so nobody outside can search for collisions.
//! Not here: which fields a response nominates (`cache::stored_response`), looking up (`cache::store`).
//!
//! [RFC 9111 §2]: https://www.rfc-editor.org/rfc/rfc9111#section-2

use std::hash::{BuildHasherDefault, Hash, Hasher};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::admission::AdmittedRequest;
use crate::credential::CredentialPartition;
use crate::routes::spelling::{escape, normalized_path, push};

/// Bytes that stand for themselves in a normalized query; everything that separates is escaped.
const PLAIN_IN_QUERY: &[u8] = b"-._~!$'()*,:@/?";

/// Computes key hashes: SipHash-2-4 with 128 bits under a key of this deployment.
#[derive(Clone)]
pub struct KeyHasher {
    key: [u8; 16],
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyHasher([redacted])")
    }
}

impl KeyHasher {
    /// Takes the key under which everything is hashed.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    fn start(&self) -> KeyHash {
        KeyHash(SipHasher24::new_with_key(&self.key))
    }
}

/// A hash in the making; every part is written with its length, so that no two sequences of parts run together.
struct KeyHash(SipHasher24);

impl KeyHash {
    fn part(&mut self, bytes: &[u8]) {
        self.0.write_usize(bytes.len());
        self.0.write(bytes);
    }

    fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

/// The part of the key that does not depend on `Vary`: partition, upstream, normalized target, [`Negotiation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimaryKey(CacheKey);

/// The key of one stored response: the primary key and the values of the nominated fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey {
    partition: CredentialPartition,
    hash: u128,
}

impl PrimaryKey {
    /// Builds the primary key of a request to an upstream, which is named by its authority.
    pub fn of(request: &AdmittedRequest, upstream: &str, hasher: &KeyHasher) -> Self {
        let parts = KeyParts::of(request, upstream);
        let mut hash = hasher.start();
        hash.part(request.partition().as_bytes());
        hash.part(parts.upstream.as_bytes());
        hash.part(parts.path.as_bytes());
        hash.part(parts.query.as_bytes());
        hash.part(parts.accept.as_ref().map_or(&[], HeaderValue::as_bytes));
        hash.part(&parts.language);
        hash.part(parts.origin.as_ref().map_or(&[], HeaderValue::as_bytes));
        Self(CacheKey { partition: request.partition(), hash: hash.finish() })
    }

    /// Returns the key itself, under which responses without nominated fields are stored.
    pub fn key(self) -> CacheKey {
        self.0
    }

    /// Returns the key of the variant that a request with these fields selects ([RFC 9111 §4.1]).
    ///
    /// [RFC 9111 §4.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.1
    pub fn variant(self, nominated: &[HeaderName], fields: &HeaderMap, hasher: &KeyHasher) -> CacheKey {
        if nominated.is_empty() {
            return self.0;
        }
        let mut hash = hasher.start();
        hash.part(&self.0.hash.to_ne_bytes());
        for name in nominated {
            hash.part(name.as_str().as_bytes());
            // "… the presented request fields … can be transformed: adding or removing whitespace, … combining
            // multiple field lines with the same field name" (RFC 9111 §4.1).
            let value = fields.contains_key(name).then(|| combined(fields, name));
            hash.part(value.as_deref().map_or(&[0], str::as_bytes));
        }
        CacheKey { partition: self.0.partition, hash: hash.finish() }
    }
}

/// What a primary key is made of besides the partition, readable, in the form in which it is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// The authority of the upstream.
    pub upstream: &'a str,
    /// The path in normal spelling.
    pub path: String,
    /// The query in normal spelling.
    pub query: String,
    /// `Accept`; absent where it is JSON.
    pub accept: Option<HeaderValue>,
    /// `Accept-Language`; empty where it is any.
    pub language: Vec<u8>,
    /// `Origin`.
    pub origin: Option<HeaderValue>,
}

impl<'a> KeyParts<'a> {
    /// Returns the parts of the key of a request to an upstream, which is named by its authority.
    pub fn of(request: &AdmittedRequest, upstream: &'a str) -> Self {
        let Negotiation { accept, language, origin } = Negotiation::of(request);
        Self {
            upstream,
            path: normalized_path(request.path()),
            query: normalized_query(request.query().unwrap_or_default()),
            accept,
            language: language.as_ref().map(normalized_language).unwrap_or_default(),
            origin,
        }
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The hash is keyed and uniform: half of it is as good as hashing once more.
        #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
        state.write_u64(self.hash as u64);
    }
}

/// Hands the 64 bits of a [`CacheKey`] through unchanged.
#[derive(Debug, Default, Clone, Copy)]
pub struct PassThroughHasher(u64);

impl Hasher for PassThroughHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u64` is used; this keeps the trait's promise for anything else.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Builds the hasher for maps keyed by [`CacheKey`].
pub type KeyHashBuilder = BuildHasherDefault<PassThroughHasher>;

/// The request fields that are part of every key, in the form in which a flight sends them.
///
/// Sentry varies by language and echoes `Origin` without saying so (`sentry-api.md` §1); clients spell "anything"
/// in several ways, which must not split the cache (`clients.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiation {
    /// `Accept`: absent where the client accepts JSON, else its literal value.
    pub accept: Option<HeaderValue>,
    /// `Accept-Language`: absent where the client says `*` or nothing.
    pub language: Option<HeaderValue>,
    /// `Origin`.
    pub origin: Option<HeaderValue>,
}

impl Negotiation {
    /// Reads the negotiation of a request.
    pub fn of(request: &AdmittedRequest) -> Self {
        Self::read(request.fields())
    }

    fn read(fields: &HeaderMap) -> Self {
        let language = joined(fields, &header::ACCEPT_LANGUAGE);
        Self {
            accept: joined(fields, &header::ACCEPT).filter(|value| !accepts_json(value)),
            language: language.filter(|value| value.as_bytes().trim_ascii() != b"*"),
            origin: joined(fields, &header::ORIGIN),
        }
    }
}

/// Returns whether one of the media ranges that JSON falls into is listed, and none of them is refused.
fn accepts_json(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let mut ranges =
        text.split(',').map(|range| crate::headers::weighted(range.trim())).filter(|(range, _)| {
            ["*/*", "application/*", "application/json"].iter().any(|json| range.eq_ignore_ascii_case(json))
        });
    let Some((_, first)) = ranges.next() else { return false };
    first > 0.0 && ranges.all(|(_, weight)| weight > 0.0)
}

/// Returns `Accept-Language` without what means nothing: language tags are the same in any case (RFC 9110 §8.5.1), and
/// whitespace separates nothing. The order stays: Django takes the first of those with equal weights.
fn normalized_language(value: &HeaderValue) -> Vec<u8> {
    value.as_bytes().iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect()
}

/// Returns all values of a field as one, as the client sent them.
fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = fields.get_all(name).iter();
    let first = values.next()?;
    let mut bytes = first.as_bytes().to_vec();
    for value in values {
        bytes.extend_from_slice(b", ");
        bytes.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&bytes).ok().filter(|value| !value.is_empty())
}

/// Returns the values of a field as one, without the whitespace that means nothing.
fn combined(fields: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> =
        fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let members: Vec<_> = values.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    members.join(",")
}

/// Returns the normalized spelling of a query: pairs sorted by name, values of one name in their order.
pub fn normalized_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (normalized_word(name), normalized_word(value)))
        .collect();
    // "An empty `cursor=` counts as no cursor and is dropped" (`sentry-api.md` §3); with several the last counts.
    if pairs.iter().filter(|(name, _)| name == "cursor").count() == 1 {
        pairs.retain(|(name, value)| name != "cursor" || !value.is_empty());
    }
    pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
    let words: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.join("&")
}

fn normalized_word(word: &str) -> String {
    let mut normalized = String::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match escape(first, after) {
            Some(decoded) => {
                rest = after.get(2..).unwrap_or_default();
                push(&mut normalized, decoded, PLAIN_IN_QUERY);
            }
            None if first == b'+' => push(&mut normalized, b' ', PLAIN_IN_QUERY),
            None => push(&mut normalized, first, PLAIN_IN_QUERY),
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{TOKEN, asked, fields};

    #[test]
    fn equal_spellings_of_a_query_are_one() {
        let same = |left: &str, right: &str| assert_eq!(normalized_query(left), normalized_query(right));
        same("cursor=0:100:0", "cursor=0%3A100%3a0");
        same("query=a+b", "query=a%20b");
        same("", "cursor=");
        same("", "&cursor=");
        same("&cursor=1:2:3", "cursor=1:2:3");
        same("b=1&a=2&b=3", "a=2&b=1&b=3");
        same("a", "a=");
        same("release=web@1.0", "release=web%401.0");
        same("query=%zz", "query=%25zz");
        same("next=a/b", "next=a%2Fb");
    }

    #[test]
    fn different_queries_stay_different() {
        let differ = |left: &str, right: &str| assert_ne!(normalized_query(left), normalized_query(right));
        differ("project=1&project=2", "project=2&project=1");
        differ("project=1&project=1", "project=1");
        differ("statsPeriod=", "");
        differ("a=b%26c=d", "a=b&c=d");
        differ("a=1%2B1", "a=1+1");
        differ("A=1", "a=1");
        differ("cursor=1&cursor=", "cursor=1");
        differ("a%3D=1", "a==1&a=");
    }

    #[test]
    fn clients_that_accept_json_negotiate_alike() {
        let read = |pairs: &[(&str, &str)]| Negotiation::read(&fields(pairs));
        let plain = read(&[]);
        assert_eq!(plain, read(&[("accept", "*/*"), ("accept-language", "*")]));
        assert_eq!(plain, read(&[("accept", "text/html, application/json;q=0.5")]));
        assert_ne!(plain, read(&[("accept", "text/html")]));
        assert_ne!(plain, read(&[("accept", "application/json;q=0, */*")]));
        assert_ne!(plain, read(&[("accept", "*/*, application/json;q=0")]));
        assert_eq!(plain, read(&[("accept", "*/*, application/json;q=0.1, text/html;q=0")]));
        assert_ne!(plain, read(&[("accept-language", "de")]));
        assert_ne!(plain, read(&[("origin", "https://a.example")]));
    }

    fn primary(partition: u8) -> PrimaryKey {
        let keys = crate::credential::CredentialKeys::derive(&[7; 32]);
        let value = HeaderValue::from_str(&format!("Bearer {partition}")).unwrap();
        let credential = crate::credential::Credential::from_field(value);
        PrimaryKey(CacheKey { partition: keys.partition(credential.as_ref()), hash: 1 })
    }

    #[test]
    fn keys_of_two_partitions_differ_even_when_their_hashes_collide() {
        assert_ne!(primary(1), primary(2));
        assert_eq!(primary(1), primary(1));
    }

    #[test]
    fn rfc9111_4_1_variants_differ_by_value_and_presence_not_by_whitespace() {
        let hasher = KeyHasher::new([3; 16]);
        let names = [HeaderName::from_static("x-a")];
        let variant = |pairs: &[(&str, &str)]| primary(1).variant(&names, &fields(pairs), &hasher);
        assert_eq!(variant(&[("x-a", "1, 2")]), variant(&[("x-a", "1"), ("x-a", "2")]));
        assert_eq!(variant(&[("x-a", "1,2")]), variant(&[("x-a", " 1 , 2")]));
        assert_ne!(variant(&[("x-a", "1")]), variant(&[("x-a", "2")]));
        assert_ne!(variant(&[("x-a", "")]), variant(&[]));
        assert_eq!(variant(&[("x-b", "1")]), variant(&[]));
    }

    /// Returns the key of a request, by its target and fields.
    fn key_of(target: &str, pairs: &[(&str, &str)]) -> CacheKey {
        let request = asked(&format!("GET {target}"), pairs);
        PrimaryKey::of(&request, "sentry.io", &KeyHasher::new([3; 16])).key()
    }

    const PROJECTS: &str = "/api/0/organizations/acme/projects/";

    #[test]
    fn rfc9111_2_a_key_holds_who_asks_which_upstream_and_what() {
        let one = key_of(PROJECTS, &[TOKEN]);
        assert_eq!(one, key_of(PROJECTS, &[TOKEN]));
        assert_ne!(one, key_of(PROJECTS, &[("authorization", "Bearer sntryu_two")]));
        assert_ne!(one, key_of(PROJECTS, &[]));
        assert_ne!(one, key_of("/api/0/organizations/acme/teams/", &[TOKEN]));
        assert_ne!(one, key_of(&format!("{PROJECTS}?per_page=1"), &[TOKEN]));
        let request = asked(&format!("GET {PROJECTS}"), &[TOKEN]);
        let elsewhere = PrimaryKey::of(&request, "us.sentry.io", &KeyHasher::new([3; 16])).key();
        assert_ne!(one, elsewhere);
    }

    #[test]
    fn a_head_and_a_get_share_a_key_and_so_do_two_spellings_of_one_credential() {
        let hasher = KeyHasher::new([3; 16]);
        let get = key_of(PROJECTS, &[TOKEN]);
        let head = asked(&format!("HEAD {PROJECTS}"), &[TOKEN]);
        assert_eq!(PrimaryKey::of(&head, "sentry.io", &hasher).key(), get);
        assert_eq!(key_of(PROJECTS, &[("authorization", "bearer  sntryu_one")]), get);
    }

    #[test]
    fn what_a_client_negotiates_is_part_of_the_key_and_what_concerns_only_it_is_not() {
        let plain = key_of(PROJECTS, &[TOKEN]);
        let with = |name, value| key_of(PROJECTS, &[TOKEN, (name, value)]);
        for (name, value) in
            [("accept", "text/html"), ("accept-language", "de"), ("origin", "https://a.example")]
        {
            assert_ne!(with(name, value), plain, "{name}: {value}");
        }
        for (name, value) in [
            ("accept", "application/json"),
            ("accept-language", "*"),
            ("accept-encoding", "br"),
            ("user-agent", "curl"),
            ("cache-control", "no-cache"),
            ("if-none-match", "\"1\""),
            ("referer", "https://a.example/"),
            ("host", "other.example"),
        ] {
            assert_eq!(with(name, value), plain, "{name}: {value}");
        }
    }

    #[test]
    fn rfc9111_4_1_a_language_is_the_same_in_any_case_and_spacing_and_another_in_another_order() {
        let language = |value| key_of(PROJECTS, &[TOKEN, ("accept-language", value)]);
        let one = language("en, de;q=0.5");
        assert_eq!(one, language("eN,De; q=0.5"));
        assert_eq!(one, language(" en ,   de ;q=0.5"));
        assert_ne!(one, language("de;q=0.5, en"));
        assert_ne!(one, language("en, de;q=0.7"));
        let two_fields = [TOKEN, ("accept-language", "en"), ("accept-language", "de;q=0.5")];
        assert_eq!(one, key_of(PROJECTS, &two_fields));
    }

    #[test]
    fn a_language_and_an_origin_of_one_value_do_not_run_together() {
        let language = key_of(PROJECTS, &[TOKEN, ("accept-language", "x")]);
        let origin = key_of(PROJECTS, &[TOKEN, ("origin", "x")]);
        assert_ne!(language, origin);
    }

    #[test]
    fn a_table_of_keys_is_spread_by_the_keys_own_hash() {
        use std::hash::BuildHasher as _;
        let builder = KeyHashBuilder::default();
        let one = key_of(PROJECTS, &[TOKEN]);
        assert_eq!(builder.hash_one(one), builder.hash_one(key_of(PROJECTS, &[TOKEN])));
        assert_ne!(builder.hash_one(one), builder.hash_one(key_of(PROJECTS, &[])));
    }

    #[test]
    fn bytes_that_are_no_key_are_hashed_by_each_of_them_and_by_their_order() {
        let hash = |bytes: &[u8]| {
            let mut hasher = PassThroughHasher::default();
            hasher.write(bytes);
            hasher.finish()
        };
        assert_eq!(hash(&[1, 2, 3]), 0x01_02_03);
        assert_eq!(hash(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0xff]), 0, "the ninth byte meets the first");
    }

    #[test]
    fn nothing_prints_the_key_under_which_keys_are_hashed() {
        assert_eq!(format!("{:?}", KeyHasher::new([3; 16])), "KeyHasher([redacted])");
    }

    /// Spells a text with every byte escaped that `mask` says.
    fn escaped(text: &str, mask: u32) -> String {
        let spell = |(at, byte): (usize, u8)| match mask >> (at % 32) & 1 {
            1 => format!("%{byte:02x}"),
            _ => char::from(byte).to_string(),
        };
        text.bytes().enumerate().map(spell).collect()
    }

    proptest! {
        #[test]
        fn two_credentials_never_have_equal_keys(
            (one, other) in ("[a-zA-Z0-9_]{1,40}", "[a-zA-Z0-9_]{1,40}"),
            vary in proptest::option::of("[a-z]{1,5}"),
        ) {
            let bearers = [format!("Bearer {one}"), format!("Bearer {other}")];
            let hasher = KeyHasher::new([3; 16]);
            let nominated = [HeaderName::from_static("x-a")];
            let keys = bearers.each_ref().map(|bearer| {
                let mut pairs = vec![("authorization", bearer.as_str())];
                pairs.extend(vary.as_deref().map(|value| ("x-a", value)));
                let request = asked(&format!("GET {PROJECTS}"), &pairs);
                let primary = PrimaryKey::of(&request, "sentry.io", &hasher);
                (primary.key(), primary.variant(&nominated, request.fields(), &hasher))
            });
            let [(one_key, one_variant), (other_key, other_variant)] = keys;
            prop_assert_eq!(one_key == other_key, one == other);
            prop_assert_eq!(one_variant == other_variant, one == other);
            prop_assert_ne!(one_key, other_variant);
        }

        #[test]
        fn equal_normalized_targets_have_equal_keys(
            pairs in prop::collection::btree_map("[a-z]{1,4}", "[a-zA-Z0-9:@._-]{0,6}", 0..4),
            release in "[a-zA-Z0-9@._~-]{1,3}x",
            mask in any::<u32>(),
        ) {
            let query = |pairs: Vec<String>| pairs.join("&");
            let plain = query(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect());
            let spelled = query(
                pairs.iter().rev().map(|(name, value)| {
                    format!("{}={}", escaped(name, mask), escaped(value, mask))
                }).collect(),
            );
            let base = "/api/0/organizations/acme/releases";
            let one = key_of(&format!("{base}/{release}/?{plain}"), &[TOKEN]);
            let other = key_of(&format!("{base}/{}/?{spelled}&cursor=", escaped(&release, mask)), &[TOKEN]);
            prop_assert!(pairs.contains_key("cursor") || one == other);
        }

        #[test]
        fn keys_are_equal_exactly_where_normalized_targets_are(
            one in "[abcx=&%+ 2F]{0,8}",
            other in "[abcx=&%+ 2F]{0,8}",
        ) {
            let spell = |query: &str| query.replace(' ', "%20");
            let key = |query: &str| key_of(&format!("{PROJECTS}?{}", spell(query)), &[TOKEN]);
            let are_equal = normalized_query(&spell(&one)) == normalized_query(&spell(&other));
            prop_assert_eq!(key(&one) == key(&other), are_equal);
        }

        #[test]
        fn normalizing_twice_is_normalizing_once(path in "/[ -~]{0,30}", query in "[ -~]{0,30}") {
            let path = normalized_path(&path);
            prop_assert_eq!(&normalized_path(&path), &path);
            let query = normalized_query(&query);
            prop_assert_eq!(&normalized_query(&query), &query);
        }
    }
}
