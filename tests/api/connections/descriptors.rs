//! Connections never take the descriptors that the database and the log need.

use std::time::Duration;

use latchkey::proto::VerifyTokenRequest;
use tokio::{net::TcpStream, time::sleep};

use crate::support::{
    Caller,
    database::{self, Database},
    ground::{START_LIMIT, on},
    server::connect,
    sql,
    world::{create, key},
};

const FILES: u32 = 256;
const SILENT: usize = 330;

/// A verification and a mutation, on a connection of their own.
async fn works(address: std::net::SocketAddr, token: &str, name: &str) -> Result<(), tonic::Status> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect().await;
    let channel = channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let caller = Caller { channel, token: token.to_owned(), on_behalf_of: None };
    let request = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
    caller.tokens().verify_token(request).await?;
    create(&caller, "system", &key(name, &["system.events"])).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_silent_connections_than_descriptors_stop_neither_verifications_nor_mutations() {
    let database = database::fresh().await;
    let token = on(&database.app_url, &["bootstrap"]).secret_stdout().run(START_LIMIT).success();
    let serve = ["serve", "--listen-address", "127.0.0.1:0", "--connection-handshake-ms", "60000"];
    let mut process = on(&database.app_url, &serve).env("LATCHKEY_LOG_FILTER", "info").files_max(FILES).spawn();
    let address = process.address(START_LIMIT);
    let before = Caller { channel: connect(address).await, token: token.clone(), on_behalf_of: None };
    create(&before, "system", &key("before", &["system.events"])).await.expect("it serves");
    let mut silent = vec![];
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(address).await.expect("the server listens"));
    }
    for number in 0..20 {
        create(&before, "system", &key(&format!("old {number}"), &["system.events"])).await.expect("mutations work");
        works(address, &token, &format!("new {number}")).await.expect("newcomers are served");
    }
    // Its connections to the database are cut: there must be descriptors for others.
    let superuser = Database {
        name: database.name.clone(),
        app_url: database.app_url.clone(),
        owner_url: database::postgres().await.superuser_url(&database.name),
    };
    let cut = "SELECT pg_terminate_backend(pid)::text AS line FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(!sql::lines(&superuser, cut).await.is_empty());
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(address).await.expect("the server listens"));
    }
    let mut tries = 0;
    while let Err(error) = works(address, &token, "after").await {
        tries += 1;
        assert!(tries < 100, "{error:?}\n{}", process.stderr());
        sleep(Duration::from_millis(100)).await;
    }
    // Whatever there is to say about connections is said once.
    let said = process.stderr().lines().filter(|line| line.contains("connections are refused")).count();
    assert!(said <= 2, "{}", process.stderr());
    assert!(!process.stderr().contains("cannot be accepted"), "{}", process.stderr());
    drop(silent);
}
