//! The yardstick: a stock tonic server with one RPC that does nothing.
//!
//! tokio's default multi-thread runtime, tonic's default settings, and the code that tonic-prost-build generates for a
//! unary method. Both servers receive the same: its request carries the bytes of a `VerifyTokenRequest`, which the empty
//! message skips, and the same metadata. Its answer is empty. It runs as a process of its own: this program once more,
//! which ends with its standard input.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

/// Where the empty RPC is.
pub const PATH: &str = "/bench.Empty/Call";
const VARIABLE: &str = "LATCHKEY_BENCH_STOCK_SERVER";

/// The running stock server; dropping it stops it.
pub struct Stock {
    child: Child,
    pub address: SocketAddr,
}

/// Whether this process is to be the stock server.
pub fn asked() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Serves until standard input ends.
#[tokio::main]
pub async fn serve() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    println!("{}", incoming.local_addr().unwrap());
    std::thread::spawn(|| {
        // Nothing is ever written: it ends when the benchmark does, however that ends.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    // As `serve(address)` would accept.
    let incoming = incoming.with_nodelay(Some(true));
    Server::builder().add_service(EmptyServer::new(Nothing)).serve_with_incoming(incoming).await.unwrap();
}

impl Stock {
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(VARIABLE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().expect("the stock server says where it is");
        Self { child, address }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === as generated from `rpc Call(google.protobuf.Empty) returns (google.protobuf.Empty)`, less what stays unset ===

#[tonic::async_trait]
trait Empty: Send + Sync + 'static {
    async fn call(&self, request: Request<()>) -> Result<Response<()>, Status>;
}

struct Nothing;

#[tonic::async_trait]
impl Empty for Nothing {
    async fn call(&self, _request: Request<()>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

struct EmptyServer<T> {
    inner: Arc<T>,
}

struct CallSvc<T>(Arc<T>);

impl<T> EmptyServer<T> {
    fn new(inner: T) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

impl<T> Clone for EmptyServer<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Empty> UnaryService<()> for CallSvc<T> {
    type Response = ();
    type Future = BoxFuture<Response<()>, Status>;

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        let fut = async move { <T as Empty>::call(&inner, request).await };
        Box::pin(fut)
    }
}

impl<T: Empty, B> Service<http::Request<B>> for EmptyServer<T>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: http::Request<B>) -> Self::Future {
        match req.uri().path() {
            PATH => {
                let inner = self.inner.clone();
                let fut = async move {
                    let method = CallSvc(inner);
                    let mut grpc = Grpc::new(ProstCodec::default());
                    Ok(grpc.unary(method, req).await)
                };
                Box::pin(fut)
            }
            _ => Box::pin(async move { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}

impl<T> NamedService for EmptyServer<T> {
    const NAME: &'static str = "bench.Empty";
}
