//! Bodies of callers who are not let in are not read: the server's memory says so.

use std::time::Duration;

use prost::bytes::Bytes;
use tonic::Code;

use super::raw::*;
use crate::support::{
    database,
    process::{Process, latchkey},
    server::pepper,
};

const LIMIT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

fn resident_mib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_strangers_are_not_read() {
    let database = database::fresh().await;
    let on = latchkey(["serve", "--listen-address", "127.0.0.1:0"]).env("LATCHKEY_DATABASE_URL", &database.app_url);
    let on = on.env("LATCHKEY_PEPPERS", "test=env:LATCHKEY_TEST_PEPPER").env("LATCHKEY_TEST_PEPPER", pepper());
    let mut process = on.spawn();
    let address = process.address(LIMIT);
    let users: Bytes = frame(&[0x12, 0].repeat(2 * MIB - 8));
    let path = "/latchkey.v1.DirectoryService/BatchUpsertUsers";
    let before = resident_mib(&process);
    for (count, token) in [(8, ""), (64, ""), (64, "lk_nonsense")] {
        let mut open = Vec::new();
        for _ in 0..count {
            let raw = Raw::connect(address).await;
            let steps = vec![Step::Data(users.clone()), Step::Hang];
            let answer = raw.send(request(path, token, steps)).await;
            answer.refused(Code::Unauthenticated, "BAD_CREDENTIALS", "");
            open.push(raw);
        }
        let grown = resident_mib(&process).saturating_sub(before);
        assert!(grown < 64, "{count} calls of strangers took {grown} MiB");
    }
}
