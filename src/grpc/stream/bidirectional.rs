//! A bidirectional stream that answers message by message, bounded in flight, and ends when the
//! caller's authority does. Knows nothing of tokens: what an answer is, its maker says.
//!
//! Everything runs inside the response stream itself, so a client that goes away drops all of it:
//! there is no task to forget.

use futures_util::{
    Stream, StreamExt,
    future::{BoxFuture, poll_immediate},
    stream::{BoxStream, FuturesUnordered, unfold},
};
use tonic::Status;

/// What a stream is made of.
pub struct Answering<'a, In, Out> {
    /// The client's messages.
    pub messages: BoxStream<'a, Result<In, Status>>,
    /// Completes with the reason once the stream is to end: above all, with the caller's authority.
    pub ended: BoxFuture<'a, Status>,
    /// Answers one message; an error ends the stream.
    pub answer: Box<dyn Fn(In) -> BoxFuture<'a, Result<Out, Status>> + Send + 'a>,
    /// With so many messages unanswered, no more are read.
    pub in_flight_max: usize,
}

struct Running<'a, In, Out> {
    parts: Answering<'a, In, Out>,
    in_flight: FuturesUnordered<BoxFuture<'a, Result<Out, Status>>>,
    reading: bool,
}

/// Runs it. Answers come as they are ready, in whatever order.
pub fn answers<'a, In: Send + 'a, Out: Send + 'a>(
    parts: Answering<'a, In, Out>,
) -> impl Stream<Item = Result<Out, Status>> + Send + 'a {
    let running = Running { parts, in_flight: FuturesUnordered::new(), reading: true };
    unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await? {
            Ok(answer) => Some((Ok(answer), Some(running))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl<In, Out> Running<'_, In, Out> {
    async fn next(&mut self) -> Option<Result<Out, Status>> {
        let Answering { messages, ended, answer, in_flight_max } = &mut self.parts;
        loop {
            // Before waiting: the last answer may have been given after the last question was read.
            if !self.reading && self.in_flight.is_empty() {
                return None;
            }
            let room = self.reading && self.in_flight.len() < *in_flight_max;
            tokio::select! {
                // The end comes before any answer, an answer before the next question.
                biased;
                status = &mut *ended => return Some(Err(status)),
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => return Some(answer),
                message = messages.next(), if room => match message {
                    Some(Ok(message)) => {
                        let mut answering = answer(message);
                        // Most answers are there already: what waits for nothing need not be waited for.
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
