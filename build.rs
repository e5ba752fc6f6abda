//! Compiles `proto/` without a system protoc and keeps the descriptor set for reflection.

use std::{env, error::Error, fs, path::PathBuf};

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
    Ok(())
}
