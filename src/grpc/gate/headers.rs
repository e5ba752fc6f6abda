//! Validates what a request's headers alone decide: whether it is a gRPC call, of which method, and until when it may
//! run.

use http::{HeaderMap, Method as HttpMethod, StatusCode, header, request};

use super::{
    message::body::ErrorResponse,
    methods::{METHODS, Method},
};
use crate::grpc::{request::metadata, status::Refusal};

/// The largest size of all headers of a request: enough for many times a token and a user. The transport takes more, so
/// that a call with more is answered with a status that says what is wrong.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The overhead that HTTP/2 counts for each header field beside its name and value (RFC 9113, 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;
const GRPC: &[u8] = b"application/grpc";
const GRPC_ENCODING: &str = "grpc-encoding";
const IDENTITY: &[u8] = b"identity";

/// Validates the headers that every call has, and finds its method.
///
/// # Errors
/// HTTP 405 and 415 for a request that is not gRPC; RESOURCE_EXHAUSTED for too many bytes of headers; UNIMPLEMENTED for
/// an unknown method or encoding.
pub fn method(head: &request::Parts) -> Result<&'static Method, ErrorResponse> {
    if head.method != HttpMethod::POST {
        let refusal = Refusal::metadata(":method", "must be POST: this is a gRPC server");
        return Err(ErrorResponse::as_http(StatusCode::METHOD_NOT_ALLOWED, refusal));
    }
    if !is_grpc(&head.headers) {
        let refusal = Refusal::metadata("content-type", "must be `application/grpc` or `application/grpc+proto`, once");
        return Err(ErrorResponse::as_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal));
    }
    if header_bytes(head) > HEADER_BYTES_MAX {
        return Err(Refusal::headers_too_large(HEADER_BYTES_MAX).into());
    }
    let method = METHODS.get(head.uri.path()).ok_or_else(Refusal::no_such_method)?;
    if head.headers.get_all(GRPC_ENCODING).iter().any(|encoding| encoding.as_bytes() != IDENTITY) {
        return Err(ErrorResponse::of_encoding(Refusal::no_such_encoding()));
    }
    Ok(method)
}

/// Returns true for exactly one `application/grpc` or `application/grpc+proto`, in any case, with or without
/// parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some((grpc, format)) = kind.split_at_checked(GRPC.len()) else { return false };
    grpc.eq_ignore_ascii_case(GRPC) && (format.is_empty() || format.eq_ignore_ascii_case(b"+proto"))
}

fn header_bytes(head: &request::Parts) -> usize {
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES);
    let target = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.sum::<usize>() + target + head.uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// Parses `grpc-timeout`: how long the caller waits, if it says so.
///
/// # Errors
/// INVALID_ARGUMENT for a `grpc-timeout` that is malformed or repeated.
pub fn timeout(head: &request::Parts) -> Result<Option<std::time::Duration>, Refusal> {
    metadata::timeout(&head.headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(values: &[&str]) -> bool {
        let headers =
            values.iter().map(|value| (header::CONTENT_TYPE, value.parse().expect("a header value"))).collect();
        is_grpc(&headers)
    }

    #[test]
    fn only_grpc_content_types_are_accepted() {
        for good in [
            "application/grpc",
            "Application/gRPC",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc+PROTO ; a=b",
        ] {
            assert!(kind(&[good]), "{good}");
        }
        for bad in [
            "",
            "application/json",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpcx",
            "application",
            "text/plain; application/grpc",
        ] {
            assert!(!kind(&[bad]), "{bad}");
        }
        assert!(!kind(&[]));
        assert!(!kind(&["application/grpc", "application/grpc"]));
    }
}
