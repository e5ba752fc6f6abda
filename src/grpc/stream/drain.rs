//! The end of open streams when the server stops: they would never end by themselves, and keep every
//! drain waiting for its whole time.

use futures_util::future::{BoxFuture, Shared};
use tonic::Status;

use crate::grpc::status::Refusal;

/// Completes when the server drains: one for all streams.
pub type Draining = Shared<BoxFuture<'static, ()>>;

/// How a stream ends: for its own reason, or because the server stops.
pub async fn or_draining(ended: impl Future<Output = Status>, draining: Draining) -> Status {
    tokio::select! {
        biased;
        status = ended => status,
        () = draining => Refusal::draining().into(),
    }
}
