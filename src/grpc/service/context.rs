//! What the gate hands to a handler: the authenticated caller and the deadline. A handler takes the caller before it
//! looks at anything else of a request (M8).

use tokio::time::Instant;
use tonic::{Request, Status};

use crate::app::{AppError, Session};

/// When the caller stops waiting, if it said so.
#[derive(Clone, Copy, Debug)]
pub struct CallDeadline(pub Option<Instant>);

/// Takes the caller that the gate authenticated, and the message.
/// INTERNAL if the call did not pass the gate.
/// # Errors
/// INTERNAL if the call did not pass the gate.
pub fn caller<T>(request: Request<T>) -> Result<(Session, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let session = extensions.remove::<Session>();
    Ok((session.ok_or(AppError::Internal("a call bypassed the gate"))?, message))
}
