//! What a handler takes over from the door: who calls, and until when. Nothing of a request is looked at before that is
//! known (M8).

use tokio::time::Instant;
use tonic::{Request, Status};

use crate::app::{App, Error, Session};

/// The use-cases, for the services.
#[derive(Clone)]
pub struct Entry {
    /// The use-cases.
    pub app: App,
}

/// When a call's caller gives up, if it said.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Option<Instant>);

/// The caller that the door authenticated, and the message.
///
/// # Errors
/// INTERNAL if the call did not come through the door: nothing is served then.
pub fn caller<T>(request: Request<T>) -> Result<(Session, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let session = extensions.remove::<Session>();
    Ok((session.ok_or(Error::Internal("a call came past the door"))?, message))
}
