//! The major versions of PostgreSQL that will do, and how a server's own is read.

/// Oldest major version that Latchkey's schema is tested on.
pub(super) const MAJOR_MIN: u16 = 14;
/// Newest major version known to work.
pub(super) const MAJOR_MAX: u16 = 18;

/// Parses the major version in `postgres (PostgreSQL) 15.18 (Debian …)`, `… 18beta1`, `… 17.0`.
pub(super) fn parse_major(version: &str) -> Option<u16> {
    let number = version.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn versions_are_read_as_every_packager_prints_them() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse_major("something else"), None);
    }
}
