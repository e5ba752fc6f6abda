//! Inspects the bytes between a socket and the transport.
//!
//! hyper has no timeout before its handshake ends, h2 bounds some floods too tightly and others not at all, and it
//! resets calls for an `:authority` that no part of this server reads. So the frames are parsed as they are read: the
//! connection learns when its client has completed the handshake and each header block
//! ([`inspected_stream::WireEvents`]), floods are cut (`meter`), and every `:authority` is made one that h2 accepts
//! (`authority`).

mod authority;
mod frames;
mod huffman;
pub(super) mod inspected_stream;
pub(super) mod meter;
