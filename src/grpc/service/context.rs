//! What the gate hands to a handler: the authenticated caller and the deadline. A handler takes the caller before it
//! looks at anything else of a request (M8).

use tokio::time::Instant;
use tonic::{Request, Status};

use crate::app::{AppError, Session};

/// When the caller stops waiting, if it said so.
#[derive(Clone, Copy, Debug)]
pub struct CallDeadline(pub Option<Instant>);

/// Takes the caller that the gate authenticated, and the message.
///
/// # Errors
/// INTERNAL if the call did not pass the gate.
pub fn caller<T>(request: Request<T>) -> Result<(Session, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let session = extensions.remove::<Session>();
    Ok((session.ok_or(AppError::Internal("a call bypassed the gate"))?, message))
}

/// Takes the same of a change, whose caller may say that it does not wait for the other replicas.
///
/// # Errors
/// INTERNAL, as above.
pub fn changing_caller<T>(request: Request<T>, skips_wait: impl FnOnce(&T) -> bool) -> Result<(Session, T), Status> {
    let (session, message) = caller(request)?;
    let skips = skips_wait(&message);
    Ok((session.skipping_wait(skips), message))
}
