//! Creates through gRPC beside pgbench, which runs an equal transaction: `create.sql`.

use std::{process::Command, time::Duration};

use latchkey::private_postgres::binaries;

use crate::{
    report,
    side::{Call, Side},
    stats,
    support::{database::Database, ground::Ground, sql},
};

const ROUNDS: usize = 15;
const CREATES: usize = 120;
/// A create a millisecond at pgbench is two of ours.
const RATIO_LIMIT: f64 = 2.0;
const CLONE_LIMIT: Duration = Duration::from_secs(10);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/scale/create.sql");

/// pgbench on a database of its own.
struct Pgbench {
    program: std::path::PathBuf,
    environment: Vec<(&'static str, String)>,
    variables: Vec<String>,
    transactions: usize,
}

/// A copy of a database that no client is connected to, for transactions that are in no server's history.
pub async fn equal_database(ground: &Ground, of: &Database) -> Database {
    let name = "equal";
    let clone = async {
        // The connections of a server that was killed end soon after it.
        while ground.postgres.create_database(name, Some(&of.name)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(CLONE_LIMIT, clone).await.expect("no client is connected");
    Database {
        name: name.into(),
        app_url: ground.postgres.app_url(name).unwrap(),
        owner_url: ground.postgres.owner_url(name).unwrap(),
    }
}

/// Prints the budget, or what is missing for it.
pub async fn compare(ground: &Ground, equal: &Database, side: &mut Side) {
    // A folder of links to the server's programs may lack it.
    let installed = binaries::Search::this_machine().all().unwrap_or_default();
    let found = installed.iter().map(|binaries| binaries.program("pgbench")).find(|program| program.is_file());
    let Some(program) = found else {
        println!("pgbench_to_creates: skipped, there is no pgbench: install it (Debian: postgresql-15)");
        return;
    };
    let mut pgbench = Pgbench::new(program, ground, equal, side).await;
    let mut ratios = Vec::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let spans = side.calls(Call::Create, CREATES).await;
        let creates = CREATES as f64 / spans.iter().sum::<Duration>().as_secs_f64();
        let transactions = pgbench.round();
        // The first warms up.
        if round > 0 {
            ratios.push(transactions / creates);
            ours.push(creates);
            theirs.push(transactions);
        }
    }
    println!(
        "creates a second, one client: {:.0} through gRPC, {:.0} by pgbench (medians of {ROUNDS} rounds)",
        stats::median(ours),
        stats::median(theirs)
    );
    report::budget("pgbench_to_creates", stats::median(ratios), RATIO_LIMIT);
}

// === impl Pgbench ===

impl Pgbench {
    async fn new(program: std::path::PathBuf, ground: &Ground, equal: &Database, side: &Side) -> Self {
        let line = async |database: &Database, query: &str| sql::lines(database, query).await.swap_remove(0);
        let caller = "SELECT k.key_id || ' ' || s.digest::text AS line FROM api_keys k JOIN api_key_secrets s USING (key_id) \
             WHERE k.account_id = 'system'";
        let caller = line(equal, caller).await;
        let (caller_key, digest) = caller.split_once(' ').unwrap();
        let payload = "SELECT payload::text AS line FROM events WHERE account_id = 'a0' ORDER BY number DESC LIMIT 1";
        let payload = line(&side.database, payload).await;
        // postgres://role:password@host:port/database: in variables, because arguments show in the process list.
        let (role, password) = equal.app_url["postgres://".len()..].split_once('@').unwrap().0.split_once(':').unwrap();
        let environment = vec![
            ("PGHOST", "127.0.0.1".into()),
            ("PGPORT", ground.postgres.port().to_string()),
            ("PGUSER", role.into()),
            ("PGPASSWORD", password.into()),
            ("PGDATABASE", equal.name.clone()),
        ];
        let variables =
            vec![format!("caller={digest}"), format!("caller_key={caller_key}"), format!("payload={payload}")];
        Self { program, environment, variables, transactions: 0 }
    }

    /// Transactions a second, connecting not counted.
    fn round(&mut self) -> f64 {
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--client=1", "--jobs=1", "--protocol=prepared"]);
        command.arg(format!("--transactions={CREATES}")).arg("--file").arg(SCRIPT);
        for variable in self.variables.iter().chain([&format!("number={}", self.transactions)]) {
            command.arg("--define").arg(variable);
        }
        self.transactions += CREATES;
        let output = command.envs(self.environment.iter().cloned()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        match rate {
            Some(rate) if output.status.success() => rate,
            _ => panic!("pgbench failed:\n{said}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
