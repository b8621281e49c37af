//! Names every reason for which a request goes to the upstream that it goes to, once.
//!
//! Invariant: one spelling of each, in the metrics and in the log. Not here: deciding (`regions`).

/// Why a request goes to the upstream that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearing {
    /// There is one for all requests of its kind.
    Pinned,
    /// Only the control host serves it, or serves all of it.
    Control,
    /// Sentry has said that its organization lives there.
    Learned,
    /// Its own token says so, and has not been tried yet.
    Hinted,
    /// Its own token says so, and was accepted there.
    Proven,
    /// Where its organization lives is not known: the control host will find it.
    Unknown,
    /// The region where its organization was thought to live does not know it: the control host will.
    Doubted,
    /// It names no organization.
    Unnamed,
}

impl Bearing {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Pinned,
        Self::Control,
        Self::Learned,
        Self::Hinted,
        Self::Proven,
        Self::Unknown,
        Self::Doubted,
        Self::Unnamed,
    ];

    /// Returns the one spelling of the bearing.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Control => "control",
            Self::Learned => "learned",
            Self::Hinted => "hinted",
            Self::Proven => "proven",
            Self::Unknown => "unknown",
            Self::Doubted => "doubted",
            Self::Unnamed => "unnamed",
        }
    }
}
