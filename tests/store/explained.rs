//! The plan of every statement that PostgreSQL runs, as it ran: a server of its own whose `auto_explain` logs them.
//!
//! No text is copied: whatever a call sends is explained with the rows that each part of its plan looked at, nested
//! statements (triggers, foreign keys) too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::BoxFuture;
use latchkey::{
    private_postgres::{Options, PrivatePostgres},
    store::{PostgresStore, migrate},
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    database::{APP_ROLE, connect, execute, store},
    fixtures::*,
};

/// One row, at most 256 (P1), one a pepper, one a process, one a migration: all others grow.
const MAY_BE_SCANNED: [&str; 8] = [
    "__diesel_schema_migrations",
    "catalogue_head",
    "default_roles",
    "log_anchor",
    "log_head",
    "peppers",
    "permissions",
    "replicas",
];
/// A table that grows has so many rows here, or a plan for it shows nothing.
const ROWS_MIN: i64 = 3_000;

/// The time limit of a call: what is shown here is no time.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Blocks that a row costs at most, by way of an index. What an index passes over within itself shows in them alone.
const BLOCKS_OF_ROW: u64 = 5;

static SERVER: OnceCell<PrivatePostgres> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);
const ANALYSED: &str = "explained_analysed";
const NEVER_ANALYSED: &str = "explained_never_analysed";

/// What a call is made on.
#[derive(Clone)]
pub struct Ground {
    pub store: PostgresStore,
    /// A superuser's URL.
    pub url: String,
}

/// A call of a method, in one way of many, and how many rows it may look at.
pub struct Case {
    pub method: &'static str,
    pub what: String,
    pub most: u64,
    pub call: Box<dyn Fn(Ground) -> BoxFuture<'static, ()> + Send + Sync>,
}

pub fn case<F>(
    method: &'static str,
    most: u64,
    what: impl Into<String>,
    call: impl Fn(Ground) -> F + Send + Sync + 'static,
) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case { method, what: what.into(), most, call: Box::new(move |ground| Box::pin(call(ground))) }
}

/// A skewed store, and the plans of what runs on it.
pub struct Explained {
    name: String,
    url: String,
    tables: BTreeSet<String>,
    log: Log,
    /// Looks at what runs.
    observer: AsyncPgConnection,
    /// Every text that was explained, and the methods that sent it.
    pub texts: BTreeMap<String, BTreeSet<&'static str>>,
}

/// A statement as it ran.
struct Run {
    text: String,
    plan: Value,
}

/// The server's log: what one database's processes wrote since the last look.
struct Log {
    path: PathBuf,
    offset: u64,
    prefix: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

async fn server() -> &'static PrivatePostgres {
    SERVER
        .get_or_init(|| async {
            let folder = std::env::temp_dir().join(format!("latchkey-explained-{}", std::process::id()));
            let settings = [
                ("session_preload_libraries", "auto_explain"),
                ("auto_explain.log_min_duration", "0"),
                ("auto_explain.log_analyze", "on"),
                ("auto_explain.log_buffers", "on"),
                ("auto_explain.log_timing", "off"),
                ("auto_explain.log_nested_statements", "on"),
                ("auto_explain.log_format", "json"),
                ("log_line_prefix", "%d "),
                // Statistics are what a test says they are.
                ("autovacuum", "off"),
            ];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let postgres = PrivatePostgres::start(Options { settings, ..Options::throwaway(folder) }).await;
            let postgres = postgres.expect("a PostgreSQL with its contrib module auto_explain starts");
            make_templates(&postgres).await;
            postgres
        })
        .await
}

/// The rows once, then a copy that is analysed. Nothing of it is explained.
async fn make_templates(postgres: &PrivatePostgres) {
    const QUIET: &str = "SET auto_explain.log_min_duration = -1";
    let hex: String = digest(1, 1).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let rows = include_str!("skewed.sql")
        .replace("{DIGEST}", &format!("'\\x{hex}'"))
        .replace("{KEY}", &key_id(1).as_uuid().to_string())
        .replace("{TARGET}", &key_id(1).to_string());
    let (root, url) = (postgres.superuser_url("postgres"), postgres.superuser_url(NEVER_ANALYSED));
    execute(&root, &format!("CREATE DATABASE {NEVER_ANALYSED}")).await;
    migrate::migrate(&url, APP_ROLE, |_| ()).await.expect("migrations run");
    execute(&url, "INSERT INTO peppers VALUES ('p1', decode(repeat('01', 32), 'hex'), true)").await;
    execute(&url, &format!("{QUIET}; {rows}")).await;
    execute(&root, &format!("CREATE DATABASE {ANALYSED} TEMPLATE {NEVER_ANALYSED}")).await;
    execute(&postgres.superuser_url(ANALYSED), &format!("{QUIET}; ANALYZE")).await;
}

/// What is wrong with a plan's part, if something is; and how many rows it looked at.
fn judge(node: &Value, tables: &BTreeSet<String>) -> (Option<String>, u64) {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let kind = text("Node Type");
    // What writes rows got them from a scan.
    let scans = kind.ends_with("Scan") && (tables.contains(text("Relation Name")) || kind == "Bitmap Index Scan");
    if !scans {
        return (None, 0);
    }
    let fault = (kind == "Seq Scan").then(|| format!("scans {}", text("Relation Name")));
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let rows = (number("Actual Rows") + removed) * number("Actual Loops");
    // Rounded for each loop.
    (fault, rows.ceil() as u64)
}

/// A plan as people read it.
fn sketch(plan: &Value, depth: usize) -> String {
    let field = |name: &str| plan.get(name).map(|value| format!(" {}", value.to_string().trim_matches('"')));
    let fields = ["Node Type", "Index Name", "Relation Name", "Actual Rows", "Actual Loops", "Rows Removed by Filter"];
    let conditions = ["Index Cond", "Filter", "Recheck Cond"];
    let line: String = fields.into_iter().chain(conditions).filter_map(field).collect();
    let of_parts = plan["Plans"].as_array().into_iter().flatten().map(|part| sketch(part, depth + 1));
    format!("\n    {:1$}{line}{2}", "", depth * 2, of_parts.collect::<String>())
}

fn parts<'p>(plan: &'p Value, found: &mut Vec<&'p Value>) {
    found.push(plan);
    for part in plan["Plans"].as_array().into_iter().flatten() {
        parts(part, found);
    }
}

// === impl Explained ===

impl Explained {
    /// A store of the test's own, with statistics of all its rows, or of none.
    pub async fn new(analysed: bool) -> Self {
        let postgres = server().await;
        let name = format!("explained_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let template = if analysed { ANALYSED } else { NEVER_ANALYSED };
        execute(&postgres.superuser_url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = postgres.superuser_url(&name);
        let tables = growing_tables(&url).await;
        let mut observer = connect(&postgres.superuser_url("postgres")).await;
        observer.batch_execute("SET auto_explain.log_min_duration = -1").await.expect("a superuser may");
        let path = postgres.data_dir().join("postgres/postgres.log");
        let log = Log { path, offset: 0, prefix: format!("{name} LOG:  duration: ") };
        Self { name, url, tables, log, observer, texts: BTreeMap::new() }
    }

    /// Makes every call in both plan modes; what looked at too much, or by a scan.
    pub async fn faults(&mut self, cases: &[Case]) -> Vec<String> {
        let mut faults = Vec::new();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            execute(&self.url, &format!("ALTER DATABASE {} SET plan_cache_mode = {mode}", self.name)).await;
            let ground = Ground { store: store(&self.url, PATIENCE), url: self.url.clone() };
            self.quiet().await;
            self.log.read();
            for case in cases {
                (case.call)(ground.clone()).await;
                self.quiet().await;
                let runs = self.log.read();
                if let Some(fault) = self.fault(case, runs) {
                    faults.push(format!("{mode}: {fault}"));
                }
            }
            ground.store.close();
        }
        faults
    }

    /// Waits until no statement or transaction is under way: only then is each logged.
    async fn quiet(&mut self) {
        let busy = format!(
            "SELECT count(*) AS count FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle'",
            self.name
        );
        while sql_query(&busy).get_result::<Count>(&mut self.observer).await.expect("a count").count > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn fault(&mut self, case: &Case, runs: Vec<Run>) -> Option<String> {
        let (mut rows, mut what) = (0, String::new());
        let mut dearest: BTreeMap<u64, String> = BTreeMap::new();
        for run in runs {
            let mut found = Vec::new();
            parts(&run.plan, &mut found);
            let judged: Vec<_> = found.into_iter().map(|part| judge(part, &self.tables)).collect();
            let blocks = run.plan["Shared Hit Blocks"].as_u64().unwrap_or_default()
                + run.plan["Shared Read Blocks"].as_u64().unwrap_or_default();
            let of_rows: u64 = judged.iter().map(|(_, rows)| rows).sum();
            let of_run = of_rows.max(blocks / BLOCKS_OF_ROW);
            rows += of_run;
            let scans: Vec<_> = judged.into_iter().filter_map(|(fault, _)| fault).collect();
            if !scans.is_empty() {
                what += &format!("\n  {}: {}{}", scans.join(", "), run.text, sketch(&run.plan, 0));
            }
            dearest.insert(of_run, format!("{blocks} blocks and {}{}", run.text, sketch(&run.plan, 0)));
            self.texts.entry(run.text).or_default().insert(case.method);
        }
        if rows > case.most {
            let (most, dearest) = dearest.last_key_value().expect("something read rows");
            what += &format!("\n  {rows} rows (at most {}), of which {most} by\n  {dearest}", case.most);
        }
        (!what.is_empty()).then(|| format!("{}({}){what}", case.method, case.what))
    }
}

async fn growing_tables(url: &str) -> BTreeSet<String> {
    let mut conn = connect(url).await;
    conn.batch_execute("SET auto_explain.log_min_duration = -1").await.expect("a superuser may");
    let tables = "SELECT relname::text AS name, (xpath('/row/c/text()', query_to_xml(format( \
        'SELECT count(*) AS c FROM %I', relname), false, true, '')))[1]::text::bigint AS rows \
        FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let tables: Vec<Table> = sql_query(tables).load(&mut conn).await.expect("tables");
    let growing: Vec<_> = tables.into_iter().filter(|table| !MAY_BE_SCANNED.contains(&&*table.name)).collect();
    assert!(growing.len() > 10, "the catalog is read");
    for Table { name, rows } in &growing {
        assert!(*rows >= ROWS_MIN, "{name} grows, and has {rows} rows here: put more into skewed.sql");
    }
    growing.into_iter().map(|table| table.name).collect()
}

// === impl Log ===

impl Log {
    fn read(&mut self) -> Vec<Run> {
        let mut file = File::open(&self.path).expect("the server logs");
        file.seek(SeekFrom::Start(self.offset)).expect("a file");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("readable");
        // What another database's process is writing just now is left for the next look.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        self.offset += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        // A line that begins with a tab goes on with the one before it.
        let starts: Vec<_> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let starts = starts.into_iter().filter(|at| !text[*at..].starts_with('\t'));
        let mut runs = Vec::new();
        let mut from = 0;
        for to in starts {
            runs.extend(self.run(&text[from..to]));
            from = to;
        }
        runs
    }

    fn run(&self, entry: &str) -> Option<Run> {
        let (_, plan) = entry.strip_prefix(&self.prefix)?.split_once("plan:\n")?;
        let mut logged: Value = serde_json::from_str(plan).expect("a plan in JSON");
        let text = logged["Query Text"].as_str().expect("its text").to_owned();
        Some(Run { text, plan: logged["Plan"].take() })
    }
}
