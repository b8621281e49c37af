//! Whose request it is: the credential, and what may be derived from it.
//!
//! A [`Credential`] is the `Authorization` field of one request. It is sent upstream and then forgotten. What
//! stays is derived from it by HMAC-SHA256 under the deployment's secret ([`CredentialKeys`]): the
//! [`CredentialPartition`], which is part of every cache key, and the [`Fingerprint`], which is what people may see. What an
//! organization token says of itself is read in [`claim`].
//!
//! Invariants: no type here prints a credential; two credentials share a partition only if they are equal
//! (the scheme's case and the space around the value aside, [RFC 9110 §11.1]); a partition cannot be computed
//! without the secret. Not here: whether a credential is any good, which only upstream knows.
//!
//! [RFC 9110 §11.1]: https://www.rfc-editor.org/rfc/rfc9110#section-11.1

use std::fmt;

use aws_lc_rs::hmac;
use http::HeaderValue;

use crate::credential::claim::Claim;

pub mod claim;

/// The credential of one request: the value of its `Authorization` field.
#[derive(Clone)]
pub struct Credential {
    value: HeaderValue,
    kind: CredentialKind,
    /// Length of the scheme's name at the start of `value`.
    scheme: usize,
}

impl Credential {
    /// Takes the value of an `Authorization` field; `None` when it is empty.
    pub fn from_field(mut value: HeaderValue) -> Option<Self> {
        if value.as_bytes().trim_ascii().is_empty() {
            return None;
        }
        // Keeps it out of `Debug` output and of HPACK's dynamic table.
        value.set_sensitive(true);
        let bytes = value.as_bytes().trim_ascii_start();
        let scheme = bytes.iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len());
        let kind = CredentialKind::of(bytes.get(..scheme).unwrap_or(bytes), parameter(bytes, scheme));
        Some(Self { value, kind, scheme })
    }

    /// Reads a credential as people paste it: a value with a scheme as it is, a bare token as a `Bearer` one, with or
    /// without the field's name before it. `None` for what could not be sent.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let (text, name) = (text.trim_ascii(), b"authorization:");
        let text = match text.split_at_checked(name.len()) {
            Some((field, value)) if field.eq_ignore_ascii_case(name) => value.trim_ascii(),
            Some(_) | None => text,
        };
        let has_scheme = text.contains(&b' ');
        let value = if has_scheme || text.is_empty() { text.to_vec() } else { [b"Bearer ", text].concat() };
        Self::from_field(HeaderValue::from_bytes(&value).ok()?)
    }

    /// Returns the field value to send upstream: the client's own bytes.
    pub fn field_value(&self) -> &HeaderValue {
        &self.value
    }

    /// Returns what kind of credential this is, by its scheme and prefix.
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// Returns what an organization token says of itself, which anybody can write; `None` for every other kind.
    pub fn claim(&self) -> Option<Claim> {
        let bytes = self.value.as_bytes().trim_ascii_start();
        (self.kind == CredentialKind::OrganizationToken)
            .then(|| Claim::read(parameter(bytes, self.scheme)))?
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The kinds of credential that Sentry knows (`sentry-api.md` §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// `Bearer sntryu_…`: a user's token.
    UserToken,
    /// `Bearer sntrya_…`: a token of an OAuth application, for a user.
    OauthToken,
    /// `Bearer sntryi_…`: a token of an integration.
    IntegrationToken,
    /// `Bearer sntrys_…`: an organization's token.
    OrganizationToken,
    /// `Bearer …` without a known prefix: an old token.
    LegacyToken,
    /// `Basic …`: a legacy API key of an organization.
    ApiKey,
    /// `DSN …`: a project's DSN.
    Dsn,
    /// Any other scheme: passed on, never cached.
    Unknown,
}

impl CredentialKind {
    /// Returns the one spelling of the kind.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UserToken => "user-token",
            Self::OauthToken => "oauth-token",
            Self::IntegrationToken => "integration-token",
            Self::OrganizationToken => "organization-token",
            Self::LegacyToken => "legacy-token",
            Self::ApiKey => "api-key",
            Self::Dsn => "dsn",
            Self::Unknown => "unknown-scheme",
        }
    }

    fn of(scheme: &[u8], parameter: &[u8]) -> Self {
        if scheme.eq_ignore_ascii_case(b"bearer") {
            match parameter.get(..7) {
                Some(b"sntryu_") => Self::UserToken,
                Some(b"sntrya_") => Self::OauthToken,
                Some(b"sntryi_") => Self::IntegrationToken,
                Some(b"sntrys_") => Self::OrganizationToken,
                Some(_) | None => Self::LegacyToken,
            }
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            Self::ApiKey
        } else if scheme.eq_ignore_ascii_case(b"dsn") {
            Self::Dsn
        } else {
            Self::Unknown
        }
    }
}

/// The set of stored responses that one credential may reuse: 128 bits of a keyed hash.
///
/// There is exactly one partition for requests without a credential, and it is a shared cache (RFC 9111).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialPartition([u8; 16]);

impl CredentialPartition {
    /// The partition of requests without a credential.
    pub const ANONYMOUS: Self = Self([0; 16]);

    /// Returns the bytes, for use inside a keyed hash.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for CredentialPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::ANONYMOUS { "anonymous" } else { "credential" })
    }
}

/// Whom Sentry counts a credential's requests for (`sentry-api.md` §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetIdentity {
    /// The address that requests come from: ours, for everybody whom it does not know as a user.
    Address,
    /// One credential, as far as is known.
    Credential(CredentialPartition),
    /// Several credentials that the operator says belong to one user, by their position in the configuration.
    Alias(usize),
}

impl BudgetIdentity {
    /// Returns whom requests with a credential of this kind count for, where no alias says otherwise.
    pub fn of(kind: Option<CredentialKind>, partition: CredentialPartition) -> Self {
        match kind {
            Some(
                CredentialKind::UserToken
                | CredentialKind::OauthToken
                | CredentialKind::IntegrationToken
                | CredentialKind::LegacyToken,
            ) => Self::Credential(partition),
            Some(
                CredentialKind::OrganizationToken
                | CredentialKind::ApiKey
                | CredentialKind::Dsn
                | CredentialKind::Unknown,
            )
            | None => Self::Address,
        }
    }
}

/// What people may see of a credential: 64 bits of a keyed hash, as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Reads a fingerprint as it is shown; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    /// Returns its bits, for use inside a hash.
    pub fn to_bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The keys under which partitions and fingerprints are computed, derived from the deployment's secret.
pub struct CredentialKeys {
    partition: hmac::Key,
    fingerprint: hmac::Key,
}

impl CredentialKeys {
    /// Derives the keys from the deployment's secret. Equal secrets give equal partitions in every process.
    pub fn derive(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let subkey =
            |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, purpose).as_ref());
        Self { partition: subkey(b"sentrybox partition 1"), fingerprint: subkey(b"sentrybox fingerprint 1") }
    }

    /// Returns the partition of a credential, or the anonymous one.
    pub fn partition(&self, credential: Option<&Credential>) -> CredentialPartition {
        let Some(credential) = credential else { return CredentialPartition::ANONYMOUS };
        let mut partition = [0; 16];
        fill(&mut partition, &canonical_hash(&self.partition, credential));
        CredentialPartition(partition)
    }

    /// Returns the fingerprint of the credential that owns a partition; the anonymous one has none.
    pub fn fingerprint(&self, partition: CredentialPartition) -> Option<Fingerprint> {
        if partition == CredentialPartition::ANONYMOUS {
            return None;
        }
        let mut bytes = [0; 8];
        fill(&mut bytes, &hmac::sign(&self.fingerprint, partition.as_bytes()));
        Some(Fingerprint(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for CredentialKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialKeys([redacted])")
    }
}

/// Derives a 128-bit key for another purpose from the deployment's secret.
pub fn derive_key(secret: &[u8], purpose: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    fill(&mut key, &hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose));
    key
}

/// Hashes the credential in its canonical form: scheme in lower case, one zero byte, the trimmed rest.
fn canonical_hash(key: &hmac::Key, credential: &Credential) -> hmac::Tag {
    let bytes = credential.value.as_bytes().trim_ascii_start();
    let mut context = hmac::Context::with_key(key);
    let scheme = bytes.get(..credential.scheme).unwrap_or(bytes);
    context.update(&scheme.to_ascii_lowercase());
    context.update(&[0]);
    context.update(parameter(bytes, credential.scheme));
    context.sign()
}

fn parameter(bytes: &[u8], scheme: usize) -> &[u8] {
    bytes.get(scheme..).unwrap_or_default().trim_ascii()
}

fn fill(target: &mut [u8], tag: &hmac::Tag) {
    for (to, from) in target.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(value: &str) -> Credential {
        Credential::from_field(HeaderValue::from_str(value).unwrap()).unwrap()
    }

    fn keys() -> CredentialKeys {
        CredentialKeys::derive(b"a secret of at least thirty-two characters")
    }

    #[test]
    fn the_case_of_the_scheme_does_not_split_a_partition() {
        let keys = keys();
        let partition = |value: &str| keys.partition(Some(&credential(value)));
        assert_eq!(partition("Bearer x"), partition("bearer  x "));
        assert_ne!(partition("Bearer x"), partition("Bearer X"));
        assert_ne!(partition("Bearer x"), partition("Basic x"));
        assert_ne!(partition("Bearer x"), partition("Bearerx"));
    }

    #[test]
    fn a_partition_needs_the_secret() {
        let other = CredentialKeys::derive(b"another secret of thirty-two characters!");
        assert_ne!(
            keys().partition(Some(&credential("Bearer x"))),
            other.partition(Some(&credential("Bearer x")))
        );
    }

    #[test]
    fn no_credential_is_the_anonymous_partition_and_no_credential_shares_it() {
        assert_eq!(keys().partition(None), CredentialPartition::ANONYMOUS);
        assert_ne!(keys().partition(Some(&credential("Bearer x"))), CredentialPartition::ANONYMOUS);
    }

    #[test]
    fn nothing_prints_a_credential() {
        let credential = credential("Bearer sntryu_canary");
        let keys = keys();
        let printed = format!(
            "{credential:?} {:?} {keys:?} {:?} {:?}",
            keys.partition(Some(&credential)),
            credential.field_value(),
            keys.fingerprint(keys.partition(Some(&credential)))
        );
        assert!(!printed.contains("canary"), "{printed}");
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown() {
        let fingerprint = Fingerprint(0x0123_4567_89ab_cdef);
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        for odd in ["", "123456789abcdef", "0123456789abcdefg", "0123456789abcdeg", "+123456789abcdef"] {
            assert_eq!(Fingerprint::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn sentry_counts_users_by_user_and_whom_it_does_not_know_by_address() {
        let keys = keys();
        let identity = |value: &str| {
            let credential = credential(value);
            BudgetIdentity::of(Some(credential.kind()), keys.partition(Some(&credential)))
        };
        assert_eq!(identity("Bearer sntryu_1"), identity("bearer sntryu_1"));
        assert_ne!(identity("Bearer sntryu_1"), identity("Bearer sntryu_2"));
        for value in ["Bearer sntrys_1", "Basic MDEyMzo=", "Negotiate x"] {
            assert_eq!(identity(value), BudgetIdentity::Address, "{value}");
        }
        assert_eq!(BudgetIdentity::of(None, CredentialPartition::ANONYMOUS), BudgetIdentity::Address);
    }

    #[test]
    fn an_organization_token_claims_something_and_no_other_kind_does() {
        let claim = "eyJvcmciOiJhY21lIiwicmVnaW9uX3VybCI6Imh0dHBzOi8vdXMuc2VudHJ5LmlvIn0=";
        let claimed = |value: &str| credential(value).claim().map(|claim| claim.organization);
        assert_eq!(claimed(&format!("bearer  sntrys_{claim}_x ")).as_deref(), Some("acme"));
        for value in
            [format!("Bearer sntryu_{claim}_x"), format!("DSN sntrys_{claim}_x"), format!("sntrys_{claim}_x")]
        {
            assert_eq!(claimed(&value), None, "{value}");
        }
    }

    #[test]
    fn the_kind_is_told_by_scheme_and_prefix() {
        let kind = |value: &str| credential(value).kind();
        assert_eq!(kind("bearer sntryu_1"), CredentialKind::UserToken);
        assert_eq!(kind("Bearer sntrya_1"), CredentialKind::OauthToken);
        assert_eq!(kind("Bearer sntryi_1"), CredentialKind::IntegrationToken);
        assert_eq!(kind("Bearer sntrys_1"), CredentialKind::OrganizationToken);
        assert_eq!(kind("Bearer 0123"), CredentialKind::LegacyToken);
        assert_eq!(kind("Basic MDEyMzo="), CredentialKind::ApiKey);
        assert_eq!(kind("DSN https://k@o.example/1"), CredentialKind::Dsn);
        assert_eq!(kind("Negotiate x"), CredentialKind::Unknown);
    }
}
