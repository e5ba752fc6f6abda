//! One message of StreamVerifyTokens, answered from memory if that has all of its answers.

use super::{answer::Many, question::Batch, raw::Raw};
use crate::app::{App, Session};

/// The answer; `None` if a longer way must be gone. The caller is looked at anew, for each message.
pub fn answer_message(app: &App, caller: &Session, message: &Raw) -> Option<Raw> {
    let memory = app.session_from_memory(caller)?;
    let batch = Batch::read_message(&message.0, |name| memory.permission(name))?;
    let questions = batch.questions();
    let mut many = Many::of_message(batch.correlation_id, questions.len());
    memory.memory().verify_many(&questions, |_, answer| many.add(answer));
    many.finish_message().map(Raw)
}
