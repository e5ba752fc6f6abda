//! Compiles `proto/` without a system protoc and keeps the descriptor set for reflection.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost_types::{FileDescriptorProto, FileDescriptorSet};

const PROTOS: [&str; 4] = [
    "proto/latchkey/v1/api_key.proto",
    "proto/latchkey/v1/directory.proto",
    "proto/latchkey/v1/event.proto",
    "proto/latchkey/v1/token.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(PROTOS)?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    // With comments: `grpcurl describe` shows them, so the server documents itself.
    fs::write(out_dir.join("latchkey_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_client(env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Tokens travel in these messages: no derived Debug may print them (K4).
        .skip_debug([
            ".latchkey.v1.CreateApiKeyRequest",
            ".latchkey.v1.CreateApiKeyResponse",
            ".latchkey.v1.RotateApiKeyRequest",
            ".latchkey.v1.RotateApiKeyResponse",
            ".latchkey.v1.VerifyTokenRequest",
            ".latchkey.v1.VerifyTokensRequest",
            ".latchkey.v1.StreamVerifyTokensRequest",
            ".latchkey.v1.TokenCheck",
            ".latchkey.v1.ReportLeakedTokenRequest",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    compile_streams(compiler.file_descriptor_set(), &out_dir)
}

/// TokenService's server once more, its stream's messages left as the bytes that they are: most of them can be answered
/// without being taken apart (`grpc::verification::fast_path`). Without its unary verifications: those never come so far
/// (`grpc::verification::verifications`).
fn compile_streams(mut descriptors: FileDescriptorSet, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let token_service = |file: &FileDescriptorProto| file.name() == "latchkey/v1/token.proto";
    descriptors.file.iter_mut().filter(|file| !token_service(file)).for_each(|file| file.service.clear());
    for service in descriptors.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| !["VerifyToken", "VerifyTokens"].contains(&method.name()));
    }
    let folder = out_dir.join("streams");
    fs::create_dir_all(&folder)?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(folder)
        .build_client(false)
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some());
    for message in ["StreamVerifyTokensRequest", "StreamVerifyTokensResponse"] {
        builder =
            builder.extern_path(format!(".latchkey.v1.{message}"), "crate::grpc::verification::fast_path::RawMessage");
    }
    builder.extern_path(".latchkey.v1", "crate::proto").compile_fds(descriptors)?;
    Ok(())
}
