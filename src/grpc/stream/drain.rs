//! Ends open streams when the server drains: they would not end by themselves, and keep every drain waiting for its
//! whole timeout.

use futures_util::future::{BoxFuture, Shared};
use tonic::Status;

use crate::grpc::status::Refusal;

/// Completes when the server drains; shared by all streams.
pub type Draining = Shared<BoxFuture<'static, ()>>;

/// Completes with the status that a stream ends with: its own, or DRAINING once the server drains.
pub async fn or_draining(ended: impl Future<Output = Status>, draining: Draining) -> Status {
    tokio::select! {
        biased;
        status = ended => status,
        () = draining => Refusal::draining().into(),
    }
}
