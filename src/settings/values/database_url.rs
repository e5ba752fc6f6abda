//! The database's URL, which holds a password and so is never printed as given.

use std::collections::HashMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::settings::setting::{Parse, Setting};

/// Holds a `postgres://` URL. `Debug` and `Display` print it with every secret replaced by `****`.
#[derive(Clone)]
pub struct DatabaseUrl(Zeroizing<String>);

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const MASK: &str = "****";

/// Query parameters whose values are safe to print. All others are masked, so that a secret under an unforeseen name
/// (`sslpassword`, a percent-encoded `password`) is masked too.
const SHOWN_PARAMETERS: [&str; 14] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "load_balance_hosts",
    "port",
    "sslmode",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

impl DatabaseUrl {
    /// Returns the URL as given, with its password: for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the URL with every secret masked.
    ///
    /// Passwords are often not percent-encoded as they should be, so this splits at the *last* `@` and masks the whole
    /// where it cannot distinguish the password from the host.
    pub fn redacted(&self) -> String {
        let text = self.0.trim();
        let Some((scheme, rest)) = SCHEMES.iter().find_map(|scheme| Some((*scheme, text.strip_prefix(scheme)?))) else {
            return MASK.to_owned();
        };
        let (base, query) = match rest.split_once('?') {
            Some((base, query)) => (base, Some(query)),
            None => (rest, None),
        };
        let query_is_ambiguous = query.is_some_and(|query| query.contains(['@', '?', '#']));
        if query_is_ambiguous || base.contains('#') {
            return format!("{scheme}{MASK}");
        }
        let Some(base) = redact_base(base) else {
            return format!("{scheme}{MASK}");
        };
        match query {
            None => format!("{scheme}{base}"),
            Some(query) => format!("{scheme}{base}?{}", redact_query(query)),
        }
    }
}

/// Masks the password in `user:password@host:port/name`; `None` if it is unclear which part is the password.
fn redact_base(base: &str) -> Option<String> {
    let (user_info, address) = match base.rsplit_once('@') {
        Some((user_info, address)) => (Some(user_info), address),
        None => (None, base),
    };
    let hosts = address.split_once('/').map_or(address, |(hosts, _)| hosts);
    if !hosts.split(',').all(host_is_plain) {
        return None;
    }
    Some(match user_info.map(|user_info| user_info.split_once(':').map_or((user_info, None), |(u, p)| (u, Some(p)))) {
        None => address.to_owned(),
        Some((user, None)) => format!("{user}@{address}"),
        Some((user, Some(_))) => format!("{user}:{MASK}@{address}"),
    })
}

/// Checks that what follows a host's colon is a port, and so cannot be a password whose `@` was forgotten.
fn host_is_plain(host: &str) -> bool {
    let after_literal =
        if host.starts_with('[') { host.split_once(']').map_or(host, |(_, after)| after) } else { host };
    match after_literal.split_once(':') {
        None => true,
        Some((_, port)) => port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn redact_query(query: &str) -> String {
    let redact_pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if SHOWN_PARAMETERS.contains(&name) => format!("{name}={value}"),
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    };
    query.split('&').map(redact_pair).collect::<Vec<_>>().join("&")
}

impl Parse for DatabaseUrl {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let text = text.trim();
        let Some(rest) = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
            return Err(vec!["must start with postgres:// or postgresql://".to_owned()]);
        };
        if rest.is_empty() {
            return Err(vec!["has no host: expected postgres://user:password@host:5432/database".to_owned()]);
        }
        if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
            return Err(vec!["contains white space or a control character: percent-encode it".to_owned()]);
        }
        let url = Self(Zeroizing::new(text.to_owned()));
        if url.redacted().ends_with(&format!("://{MASK}")) {
            // A driver would take a part of the password for something else, and name that in its errors.
            let message = "is ambiguous: percent-encode @ : / ? # in the user name and the password";
            return Err(vec![message.to_owned()]);
        }
        Ok(url)
    }

    fn shown(&self) -> String {
        self.redacted()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.redacted())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        DatabaseUrl(Zeroizing::new(text.to_owned())).redacted()
    }

    #[test]
    fn an_ordinary_address_keeps_all_but_its_password() {
        assert_eq!(redacted("postgres://u:hunter2@db:5432/latchkey"), "postgres://u:****@db:5432/latchkey");
        assert_eq!(redacted("postgresql://db/latchkey?sslmode=require"), "postgresql://db/latchkey?sslmode=require");
        assert_eq!(redacted("postgres://u@[::1]:5432/x"), "postgres://u@[::1]:5432/x");
        assert_eq!(
            redacted("postgres:///x?host=/run/pg&password=hunter2&user=u"),
            "postgres:///x?host=/run/pg&password=****&user=u"
        );
    }

    #[test]
    fn an_address_that_runs_into_its_password_is_refused_without_a_word_of_it() {
        let setting = crate::settings::table::find("database_url").unwrap();
        let parse = |text: &str| DatabaseUrl::parse(text, setting, &HashMap::new());
        for text in ["postgres://u:a?hunter2=1@db/x", "postgres://u:a#hunter2@db/x", "postgres://u:hunter2"] {
            let problems = parse(text).unwrap_err().join(" ");
            assert!(problems.contains("percent-encode") && !problems.contains("hunter2"), "{problems}");
        }
        assert!(parse("postgres://u:a%3Fhunter2@db/x?sslmode=require").is_ok());
    }

    #[test]
    fn no_spelling_of_the_password_leaks() {
        for text in [
            "postgres://u:hunter2@db/x",
            "postgres://u:hunter2/y@db/x",
            "postgres://u:a@hunter2@db/x",
            "postgres://u:a?hunter2@db/x",
            "postgres://u:a#hunter2@db/x",
            "postgres://u:hunter2",
            "postgres://u:hunter2/x",
            "postgres://db/x?password=hunter2",
            "postgres://db/x?p%61ssword=hunter2",
            "postgres://db/x?password=a?user=hunter2",
            "postgres://db/x?sslpassword=hunter2&sslmode=require",
            "postgres://db/x?hunter2",
            "mysql://u:hunter2@db/x",
        ] {
            assert!(!redacted(text).contains("hunter2"), "{text} leaks: {}", redacted(text));
            let url = DatabaseUrl(Zeroizing::new(text.to_owned()));
            assert!(!format!("{url:?} {url}").contains("hunter2"));
        }
    }
}
