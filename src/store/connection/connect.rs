//! Connects to the primary, and to no standby: that could answer from a state before a revocation.

use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

/// Look-ups are over before a compiler would have warmed up: on a young database, whose statistics
/// are guesses, one `jit` run costs hundreds of milliseconds. And `sqlstate` reads untranslated
/// messages; only a role that was granted it may ask for them, and nearly every server is untranslated
/// anyway, so a refusal is no reason not to go on.
const SETUP_SQL: &str = "SET jit = off; \
     DO $$ BEGIN PERFORM set_config('lc_messages', 'C', false); \
     EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";

/// Connects to the primary within the time limit. With a statement limit the server itself ends what
/// runs longer: else each statement given up here would leave a busy backend behind, and a long lock
/// would use up the server's connections.
pub async fn establish(
    url: String,
    timeout: Duration,
    statement: Option<Duration>,
) -> ConnectionResult<AsyncPgConnection> {
    let limit = statement.map(|limit| format!("; SET statement_timeout = '{}ms'", limit.as_millis()));
    let setup = format!("{SETUP_SQL}{}", limit.unwrap_or_default());
    let connect = async {
        let mut connection = AsyncPgConnection::establish(&url).await?;
        connection.batch_execute(&setup).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    };
    let late = || Err(ConnectionError::BadConnection("connecting took longer than the time limit".into()));
    tokio::time::timeout(timeout, connect).await.unwrap_or_else(|_| late())
}

/// So that a connection whose other end is gone without a word is noticed within 20 seconds, not hours: one that only
/// listens never sends, and every revocation would wait for polls meanwhile.
const KEEPALIVES: [&str; 3] = ["keepalives_idle=10", "keepalives_interval=3", "keepalives_retries=3"];

/// Returns the URL, with the demand for a primary (the last of two parameters of a name counts), and with keepalives
/// unless it has its own.
pub fn primary_only(url: &str) -> String {
    const PRIMARY: &str = "target_session_attrs=read-write";
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let between = if is_url { "&" } else { " " };
    let first = if is_url && !url.contains('?') { "?" } else { between };
    let keepalives = if url.contains("keepalives") { &[][..] } else { &KEEPALIVES };
    let parameters = [keepalives, &[PRIMARY]].concat().join(between);
    format!("{url}{first}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_insists_on_the_primary() {
        let alive = "keepalives_idle=10&keepalives_interval=3&keepalives_retries=3";
        assert_eq!(primary_only("postgres://h/d"), format!("postgres://h/d?{alive}&target_session_attrs=read-write"));
        assert_eq!(
            primary_only("postgresql://h/d?target_session_attrs=any&keepalives=0"),
            "postgresql://h/d?target_session_attrs=any&keepalives=0&target_session_attrs=read-write"
        );
        assert_eq!(
            primary_only("host=h dbname=d"),
            "host=h dbname=d keepalives_idle=10 keepalives_interval=3 keepalives_retries=3 target_session_attrs=read-write"
        );
    }
}
