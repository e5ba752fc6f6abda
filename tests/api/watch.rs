//! WatchEvents: nothing missed, nothing told twice, nothing told to who may not hear it any more.

mod draining;
mod ending;
mod history;
mod pace;
mod resuming;

use std::time::Duration;

use latchkey::proto::{BatchUpsertTeamsRequest, Event, Revision, Team, WatchEventsRequest, WatchEventsResponse};
use tonic::{Status, Streaming, transport::Channel};

use crate::support::{Caller, World};

/// Longer than the ten seconds in which a watcher is promised to hear something.
const PATIENCE: Duration = Duration::from_secs(15);

/// A watch that is open.
struct Watch(Streaming<WatchEventsResponse>);

impl Watch {
    async fn open(caller: &Caller, account: &str, after_revision: Option<Revision>) -> Result<Self, Status> {
        let request = WatchEventsRequest { account_id: account.into(), after_revision };
        Ok(Self(caller.events().watch_events(request).await?.into_inner()))
    }

    /// The next message, or the end with its reason.
    async fn next(&mut self) -> Result<WatchEventsResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.0.message()).await.expect("not a word");
        next.map(|message| message.expect("no end without a reason"))
    }

    /// The next event, past heartbeats.
    async fn event(&mut self) -> Result<Event, Status> {
        loop {
            if let Some(event) = self.next().await?.event {
                return Ok(event);
            }
        }
    }

    /// Events up to a number, inclusive.
    async fn up_to(&mut self, last: i64) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last().is_none_or(|event| number(event) < last) {
            events.push(self.event().await.expect("open"));
        }
        events
    }

    /// What still came, and then the end.
    async fn end(&mut self) -> (Vec<i64>, Status) {
        let mut events = Vec::new();
        loop {
            match self.event().await {
                Ok(event) => events.push(number(&event)),
                Err(status) => return (events, status),
            }
        }
    }
}

fn number(event: &Event) -> i64 {
    event.revision.expect("a revision").number
}

fn numbers(events: &[Event]) -> Vec<i64> {
    events.iter().map(number).collect()
}

fn at(number: i64) -> Option<Revision> {
    Some(Revision { epoch: 1, number })
}

/// So many events at once, in an account.
async fn teams(world: &World, account: &str, prefix: &str, count: usize) {
    let team = |n| Team { team_id: format!("{prefix}{n}"), display_name: "x".repeat(100), ..Default::default() };
    let teams = (0..count).map(team).collect();
    let request = BatchUpsertTeamsRequest { account_id: account.into(), teams, ..Default::default() };
    world.directory.directory().batch_upsert_teams(request).await.expect("teams");
}

/// A client that takes little before it must read on.
async fn narrow(world: &World, caller: &Caller) -> Caller {
    let url = format!("http://{}", world.server.running.address());
    let endpoint = Channel::from_shared(url).expect("a URL").initial_stream_window_size(65_535);
    Caller { channel: endpoint.connect().await.expect("the server accepts"), ..caller.clone() }
}
