//! Runs a bidirectional stream that answers message by message, bounded in flight, and ends with the caller's
//! authority. It knows nothing of tokens.
//!
//! Everything runs inside the response stream itself, so that a client's disconnect drops all of it: no task is left
//! behind.

use futures_util::{
    Stream, StreamExt,
    future::{BoxFuture, poll_immediate},
    stream::{BoxStream, FuturesUnordered, unfold},
};
use tonic::Status;

/// The parts of a bidirectional stream.
pub struct BidirectionalParts<'a, In, Out> {
    /// The client's messages.
    pub messages: BoxStream<'a, Result<In, Status>>,
    /// Completes with the reason when the stream is to end, above all with the end of the caller's authority.
    pub ended: BoxFuture<'a, Status>,
    /// Answers one message; an error ends the stream.
    pub answer: Box<dyn Fn(In) -> BoxFuture<'a, Result<Out, Status>> + Send + 'a>,
    /// The number of unanswered messages at which reading stops.
    pub in_flight_max: usize,
}

struct BidirectionalStream<'a, In, Out> {
    parts: BidirectionalParts<'a, In, Out>,
    in_flight: FuturesUnordered<BoxFuture<'a, Result<Out, Status>>>,
    reading: bool,
}

/// Builds the response stream. Answers are sent as they complete, in any order.
pub fn answers<'a, In: Send + 'a, Out: Send + 'a>(
    parts: BidirectionalParts<'a, In, Out>,
) -> impl Stream<Item = Result<Out, Status>> + Send + 'a {
    let running = BidirectionalStream { parts, in_flight: FuturesUnordered::new(), reading: true };
    unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await? {
            Ok(answer) => Some((Ok(answer), Some(running))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl<In, Out> BidirectionalStream<'_, In, Out> {
    async fn next(&mut self) -> Option<Result<Out, Status>> {
        let BidirectionalParts { messages, ended, answer, in_flight_max } = &mut self.parts;
        loop {
            // Checked before waiting: the last answer may have been given after the last message was read.
            if !self.reading && self.in_flight.is_empty() {
                return None;
            }
            let room = self.reading && self.in_flight.len() < *in_flight_max;
            tokio::select! {
                // The end comes before any answer, an answer before the next message.
                biased;
                status = &mut *ended => return Some(Err(status)),
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => return Some(answer),
                message = messages.next(), if room => match message {
                    Some(Ok(message)) => {
                        let mut answering = answer(message);
                        // Most answers complete at once and need no place in flight.
                        if let Some(answer) = poll_immediate(&mut answering).await {
                            return Some(answer);
                        }
                        self.in_flight.push(answering);
                    }
                    Some(Err(status)) => return Some(Err(status)),
                    None => self.reading = false,
                },
            }
        }
    }
}

#[cfg(test)]
#[path = "bidirectional_tests.rs"]
mod tests;
