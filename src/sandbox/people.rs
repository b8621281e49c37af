//! Who is who: the users of the sandbox, their tokens and what these may do.
//!
//! The tokens are public on purpose: they open nothing but the sandbox.
//!
//! Invariant: a token is compared, never kept; nothing here can print one.
//! Not here: who is a member of what (`sandbox::world`).

use http::HeaderValue;

use crate::sandbox::failure::Denial;

/// Token of [`User::Owner`], with every scope: owner of all 150 organizations.
pub const OWNER_TOKEN: &str = "sntryu_demo_owner";
/// Another token of [`User::Owner`], with the scopes for reading only.
pub const OWNER_READ_ONLY_TOKEN: &str = "sntryu_demo_owner_read_only";
/// Token of [`User::Other`]: a member of three organizations.
pub const OTHER_TOKEN: &str = "sntryu_demo_other";
/// Token of [`User::Nobody`]: a member of no organization.
pub const NOBODY_TOKEN: &str = "sntryu_demo_nobody";
/// Token of [`User::Owner`] with the scope `project:read` alone.
pub const PROJECT_ONLY_TOKEN: &str = "sntryu_demo_project_only";
/// Token of [`User::Owner`] that has expired.
pub const EXPIRED_TOKEN: &str = "sntryu_demo_expired";

/// What the tokens of [`User::Crowd`] start with.
const CROWD_TOKEN: &str = "sntryu_demo_crowd_";
/// Sentry's number of the person before the first one of the crowd.
const FIRST_OF_CROWD: u64 = 10_000;

/// What an owner may do.
pub const OWNER_SCOPES: &[&str] = &[
    "org:read",
    "org:write",
    "org:admin",
    "member:read",
    "member:write",
    "member:admin",
    "team:read",
    "team:write",
    "team:admin",
    "project:read",
    "project:write",
    "project:admin",
    "event:read",
    "event:write",
    "event:admin",
    "project:releases",
];
/// What a plain member may do.
pub const MEMBER_SCOPES: &[&str] = &[
    "project:releases",
    "project:read",
    "event:read",
    "org:read",
    "event:write",
    "member:read",
    "team:read",
];
const READ_SCOPES: &[&str] = &["team:read", "member:read", "org:read", "project:read", "event:read"];
const PROJECT_SCOPES: &[&str] = &["project:read"];

/// A user with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Olive Owner.
    Owner,
    /// Otto Other.
    Other,
    /// Nora Nobody.
    Nobody,
    /// One of a crowd, by number: a member of the organizations that [`User::Other`] is a member of, though in no
    /// list of members.
    Crowd(u8),
}

impl User {
    /// Returns the user as a person.
    pub fn person(self) -> Person {
        match self {
            Self::Owner => Person::named(1, "Olive Owner", "owner"),
            Self::Other => Person::named(2, "Otto Other", "other"),
            Self::Nobody => Person::named(3, "Nora Nobody", "nobody"),
            Self::Crowd(number) => Person::named(
                FIRST_OF_CROWD + u64::from(number),
                &format!("Crowd {number:03}"),
                &format!("crowd{number:03}"),
            ),
        }
    }

    /// Returns the user's role in the organizations it is a member of.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Other | Self::Nobody | Self::Crowd(_) => "member",
        }
    }
}

/// A person in a member list; most have no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Sentry's number of the person.
    pub id: u64,
    /// Full name.
    pub name: String,
    /// Address, also the user name.
    pub email: String,
}

impl Person {
    fn named(id: u64, name: &str, mailbox: &str) -> Self {
        Self { id, name: name.to_owned(), email: format!("{mailbox}@example.test") }
    }

    /// Returns the `number`-th person without a token.
    pub fn numbered(number: u64) -> Self {
        Self::named(number + 3, &format!("User {number:03}"), &format!("user{number:03}"))
    }
}

/// A user, and what the token in use allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Whose token it is.
    pub user: User,
    /// What the token allows.
    pub scopes: &'static [&'static str],
}

impl Identity {
    /// Returns whether the token has one of the scopes.
    pub fn has_any(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(scope))
    }
}

/// Returns whose token an `Authorization` field carries.
pub fn authenticate(authorization: Option<&HeaderValue>) -> Result<Identity, Denial> {
    let text = authorization.and_then(|value| value.to_str().ok()).ok_or(Denial::Missing)?;
    let (scheme, token) = text.split_once(' ').ok_or(Denial::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::Missing);
    }
    match token.trim() {
        OWNER_TOKEN => Ok(Identity { user: User::Owner, scopes: OWNER_SCOPES }),
        OWNER_READ_ONLY_TOKEN => Ok(Identity { user: User::Owner, scopes: READ_SCOPES }),
        PROJECT_ONLY_TOKEN => Ok(Identity { user: User::Owner, scopes: PROJECT_SCOPES }),
        OTHER_TOKEN => Ok(Identity { user: User::Other, scopes: MEMBER_SCOPES }),
        NOBODY_TOKEN => Ok(Identity { user: User::Nobody, scopes: OWNER_SCOPES }),
        EXPIRED_TOKEN => Err(Denial::Expired),
        token if token.starts_with("sntrys_") => Err(Denial::UnknownOrganizationToken),
        token => crowd(token).ok_or(Denial::Unknown),
    }
}

/// Returns a token of one of the crowd; each has 256, with every scope.
pub fn crowd_token(user: u8, token: u8) -> String {
    format!("{CROWD_TOKEN}{user}_{token}")
}

fn crowd(token: &str) -> Option<Identity> {
    let (user, number) = token.strip_prefix(CROWD_TOKEN)?.split_once('_')?;
    let (user, number): (u8, u8) = (user.parse().ok()?, number.parse().ok()?);
    let is_plain = crowd_token(user, number) == token;
    is_plain.then_some(Identity { user: User::Crowd(user), scopes: OWNER_SCOPES })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &'static str, expected: Result<User, Denial>) {
        let field = HeaderValue::from_static(field);
        assert_eq!(authenticate(Some(&field)).map(|identity| identity.user), expected);
    }

    #[test]
    fn a_token_stands_for_its_user_whatever_the_case_of_the_scheme() {
        check("Bearer sntryu_demo_owner", Ok(User::Owner));
        check("bearer  sntryu_demo_owner_read_only", Ok(User::Owner));
        check("Bearer sntryu_demo_other", Ok(User::Other));
    }

    #[test]
    fn each_of_the_crowd_has_tokens_of_its_own() {
        for token in [crowd_token(7, 0), crowd_token(7, 255)] {
            let field = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            assert_eq!(authenticate(Some(&field)).map(|identity| identity.user), Ok(User::Crowd(7)));
        }
        check("Bearer sntryu_demo_crowd_8_1", Ok(User::Crowd(8)));
        for none in
            ["Bearer sntryu_demo_crowd_8", "Bearer sntryu_demo_crowd_08_1", "Bearer sntryu_demo_crowd_8_256"]
        {
            check(none, Err(Denial::Unknown));
        }
        assert_ne!(User::Crowd(1).person(), User::Crowd(2).person());
    }

    #[test]
    fn what_is_no_valid_token_is_told_apart() {
        check("Bearer sntryu_demo_expired", Err(Denial::Expired));
        check("Bearer 0000", Err(Denial::Unknown));
        check("Bearer sntrys_x", Err(Denial::UnknownOrganizationToken));
        check("Basic MDEyMzo=", Err(Denial::Missing));
        assert_eq!(authenticate(None), Err(Denial::Missing));
    }
}
