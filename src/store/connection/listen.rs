//! Wakes the follower when a mutation commits. Only a hint: a notification that is lost, late or
//! never comes (behind a pooler in transaction mode) costs latency, and the follower polls.

use std::{sync::Arc, time::Duration};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::connect;
use crate::store::log::events::CHANNEL;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Listens until it is aborted, on a connection of its own.
pub async fn run(url: String, timeout: Duration, notify: Arc<Notify>) {
    let url = connect::primary_only(&url);
    let mut back_off = BACK_OFF_MIN;
    loop {
        match connect::establish(url.clone(), timeout, None).await {
            Ok(connection) => {
                if listen(connection, timeout, &notify).await {
                    back_off = BACK_OFF_MIN;
                }
                tracing::debug!("the connection that listens for events ended");
            }
            Err(error) => tracing::debug!(%error, "cannot listen for events; polling goes on"),
        }
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// Listens until the connection ends; returns whether LISTEN succeeded.
async fn listen(mut connection: AsyncPgConnection, timeout: Duration, notify: &Notify) -> bool {
    let listen = format!("LISTEN {CHANNEL}");
    let Ok(Ok(())) = tokio::time::timeout(timeout, connection.batch_execute(&listen)).await else { return false };
    // For what was committed before.
    notify.notify_one();
    let mut notifications = std::pin::pin!(connection.notifications_stream());
    while let Some(Ok(_)) = notifications.next().await {
        notify.notify_one();
    }
    true
}
