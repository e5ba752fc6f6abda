//! What a command that failed leaves behind: one error with its causes, and the report of it on standard error.

use std::{error::Error, sync::mpsc, thread, time::Duration};

use crate::error_chain::causes;

/// The error that a command ends with, reported to the person at the terminal.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// How long a process that is done waits for standard error to take the report.
const REPORT_WAIT: Duration = Duration::from_secs(1);

/// Prints a failure on standard error, and gives up after a second if nothing reads there.
pub(super) fn print(failure: &(dyn Error + 'static)) {
    let text = report(failure);
    let (written, done) = mpsc::channel();
    let writer = thread::Builder::new().spawn(move || {
        eprintln!("{text}");
        // The process may have ended by now.
        let _ = written.send(());
    });
    if writer.is_ok() {
        let _ = done.recv_timeout(REPORT_WAIT);
    }
}

/// Formats an error with its causes, one a line. Some errors of libraries repeat their cause in their own text: that
/// cause is left out.
fn report(failure: &(dyn Error + 'static)) -> String {
    let mut last = failure.to_string();
    let mut text = format!("latchkey: {last}");
    for cause in causes(failure) {
        let message = cause.to_string();
        if !last.contains(&message) {
            text.push_str("\n  caused by: ");
            text.push_str(&message);
            last = message;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn a_cause_that_its_error_repeats_is_reported_once() {
        let layer = |text, cause| Layer(text, Some(Box::new(cause)));
        let refused = Layer("refused", None);
        let chain = layer("it failed", layer("cannot connect: refused", layer("refused", layer("the disk", refused))));
        let text = report(&chain);
        assert_eq!(
            text,
            "latchkey: it failed\n  caused by: cannot connect: refused\n  caused by: the disk\n  caused by: refused"
        );
    }
}
