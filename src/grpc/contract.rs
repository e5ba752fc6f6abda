//! The compiled contract: the descriptors of all services and the paths of the methods that the gate treats by name.

use prost::Message;
use prost_types::FileDescriptorSet;

/// The encoded descriptors of package `latchkey.v1`, with comments: reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/latchkey_descriptor.bin"));

/// The path of VerifyToken. The gate answers it itself, so `build.rs` leaves it out of the generated service.
pub(super) const VERIFY_TOKEN: &str = "/latchkey.v1.TokenService/VerifyToken";
/// The path of VerifyTokens, which the gate answers itself, too.
pub(super) const VERIFY_TOKENS: &str = "/latchkey.v1.TokenService/VerifyTokens";

/// Decodes the descriptors of everything that the server serves, health and reflection included.
pub(super) fn served_files() -> FileDescriptorSet {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let decoded = sets.map(|set| FileDescriptorSet::decode(set).expect("compiled with this binary"));
    FileDescriptorSet { file: decoded.into_iter().flat_map(|set| set.file).collect() }
}
