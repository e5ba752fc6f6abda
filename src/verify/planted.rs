//! Mistakes that the simulation or the interleaving models must find, made on demand; compiled only with the feature
//! `planted-bugs`.
//!
//! Without the feature every question here is a constant `false`, and nothing of this is in the program.

/// A mistake that breaks an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Entries are served whatever the fences say.
    SkipFence,
    /// A lease that was ever held is held for ever.
    TrustExpiredLease,
    /// Events are acknowledged before they are applied.
    AcknowledgeFirst,
    /// What was remembered before joining is served after it.
    JoinWithoutFence,
    /// A fill claims a revision that was read after its facts.
    TwoStatementFill,
    /// A failed query is an absent token.
    ErrorIsAbsence,
    /// A flight's result is published before the flight has left the table.
    HearBeforeGone,
    /// A result is taken for fresh by every caller that waited for it.
    TrustEveryFlight,
}

/// How far apart the two steps of a mistake are: a busy machine does that now and then.
pub(super) const GAP: std::time::Duration = std::time::Duration::from_millis(200);

/// Reports whether the process was configured to make this mistake.
#[cfg(feature = "planted-bugs")]
pub(super) fn planted(bug: Bug) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("LATCHKEY_SIM_PLANTED_BUG").ok()?;
        Some(match name.as_str() {
            "skip-fence" => Bug::SkipFence,
            "trust-expired-lease" => Bug::TrustExpiredLease,
            "acknowledge-first" => Bug::AcknowledgeFirst,
            "join-without-fence" => Bug::JoinWithoutFence,
            "two-statement-fill" => Bug::TwoStatementFill,
            "error-is-absence" => Bug::ErrorIsAbsence,
            "hear-before-gone" => Bug::HearBeforeGone,
            "trust-every-flight" => Bug::TrustEveryFlight,
            other => panic!("there is no planted bug {other}"),
        })
    });
    *CHOSEN == Some(bug)
}

/// Returns false: this build makes no mistakes on purpose.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(super) const fn planted(_bug: Bug) -> bool {
    false
}
