//! The gate: what a call's headers settle before its message is read, and what a message may be. Raw HTTP/2, since no
//! good client sends most of this.

mod deadlines;
mod fields;
mod headers;
mod memory;
mod messages;
mod raw;
mod trailers;
