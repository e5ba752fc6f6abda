//! What each change looks at, and how, where one account is huge beside many small ones: what it changes, and no more.
//!
//! As in [`costs`](crate::costs); a transaction is rolled back, so that each call finds the store as it was.

use std::time::Duration;

use latchkey::{
    app::ports::{Append, EventFilter, Page, PersonalDataOf, Replicas, Stamp, Store, UsageMark},
    domain::{
        api_key::ApiKeyState,
        directory::RoleKind,
        log::{
            archive::Anchor,
            event::{Change, EventKind, Target},
            revision::Revision,
        },
        time::Timestamp,
        token::Pepper,
    },
    store::{
        log::archive::{self, Archiver},
        migrate,
    },
    verify::primary::{Acknowledgement, Primary, Registration},
};
use uuid::Uuid;

use crate::{
    database::{APP_ROLE, store_with},
    explained::{Case, PATIENCE, case},
    fixtures::*,
};

/// What a call looks at that changes one thing: the thing, what hangs on it, and what foreign keys look up.
const ONE_MAX: u64 = 100;
/// What a call looks at that ends a key's tokens: all that are on record, which are 5,000 here and bounded (K8).
const TOKENS_MAX: u64 = 5_100;
/// What a step removes at most.
const STEP: u32 = 100;
/// What a step looks at: each row that it removes a few times.
const STEP_MAX: u64 = 20 * STEP as u64;

/// Calls of methods of a transaction.
macro_rules! changes {
    ($account:ident; $($method:ident($($argument:expr),*) <= $most:expr;)*) => {
        vec![$(case(stringify!($method), $most, format!("{}: {}", $account, stringify!($($argument),*)),
            move |ground| async move {
                let mut tx = begin(&ground.store, $account).await;
                tx.$method($($argument),*).await.expect(stringify!($method));
                tx.rollback().await.expect("rolls back");
            }
        )),*]
    };
}

/// Changes of one thing, or steps of so many rows, in an account with a key.
fn changes(account: &'static str, n: u128) -> Vec<Case> {
    let id = move || account_id(account);
    let of = move |target: Option<(&str, &str)>| PersonalDataOf {
        account_id: id(),
        target: target.map(|(kind, id)| Target { kind: kind.into(), id: id.into() }),
        key_id: target.is_some_and(|(kind, _)| kind == "api_key").then(|| key_id(n)),
    };
    changes! { account;
        minting_pepper() <= ONE_MAX;
        insert_api_key(&api_key(99_999, account, grants(&[], &["t1"], &["z"])), &secret(99_999, 0)) <= ONE_MAX;
        end_retiring_tokens(key_id(n), LATE) <= TOKENS_MAX;
        note_presented(&digest(1, 1), LATE) <= ONE_MAX;
        note_operator_read(key_id(n), &id(), LATE) <= 1_000;
        put_account(&crate::fixtures::account(account)) <= ONE_MAX;
        deletion_size(&id(), None, STEP) <= STEP_MAX;
        deletion_size(&id(), Some(&team_id("t1")), STEP) <= STEP_MAX;
        deletion_size(&id(), Some(&team_id("t999")), STEP) <= STEP_MAX;
        begin_account_purge(&id(), LATE) <= ONE_MAX;
        begin_team_purge(&id(), &team_id("t1")) <= ONE_MAX;
        erase_api_keys(&id(), &(n..n + 30).map(key_id).collect::<Vec<_>>(), LATE, STEP) <= 2 * STEP_MAX;
        put_teams(&id(), &[team("t1"), team("new")]) <= ONE_MAX;
        put_roles(&id(), &[role("lead", RoleKind::Team, &["x.z"]), role("owner", RoleKind::Base, &[])]) <= ONE_MAX;
        delete_role(&id(), &role_id("r5")) <= ONE_MAX;
        put_users(&id(), &[user("u1", "owner", &[], &[]), user("new", "owner", &[], &[("t1", "manager")])]) <= ONE_MAX;
        delete_user(&id(), &user_id("u1")) <= ONE_MAX;
        erase_personal_data(&of(None), STEP) <= STEP_MAX;
        erase_personal_data(&of(Some(("api_key", &key_id(n).to_string()))), STEP) <= STEP_MAX;
        erase_personal_data(&of(Some(("user", "u1"))), STEP) <= STEP_MAX;
        start_epoch() <= ONE_MAX;
        append(stamping(account, n)) <= 200;
    }
}

fn stamping(account: &str, n: u128) -> Vec<Append> {
    let id = || account_id(account);
    let stamps = [
        vec![Stamp::ApiKeys(id(), vec![key_id(n)]), Stamp::Account(id()), Stamp::Catalogue],
        vec![Stamp::ApiKeys(id(), vec![key_id(n), key_id(n + 1)]), Stamp::Team(id(), team_id("t1"))],
        vec![Stamp::Role(id(), role_id("owner")), Stamp::User(id(), user_id("u1"))],
        vec![Stamp::Users(id(), vec![user_id("u1"), user_id("u2")])],
    ];
    let event = |stamps| event(EventKind::TeamUpdated, account, ("team", "t1"), stamps);
    let mut appends: Vec<_> = stamps.into_iter().map(event).collect();
    appends[0].draft.affected_key_ids = vec![key_id(n)];
    appends[0].draft.changes =
        vec![Change { field: "name".into(), before: "a".into(), after: "b".into(), ..Change::default() }];
    appends
}

/// The first steps of removing what a team, or an account, has, once that is marked.
fn purges(account: &'static str) -> Vec<Case> {
    let of_team = |team: &'static str, limit, most| {
        case("purge", most, format!("{account}, {team}: {limit}"), move |ground| async move {
            let (account, team) = (account_id(account), team_id(team));
            let mut tx = begin(&ground.store, account.as_str()).await;
            tx.begin_team_purge(&account, &team).await.expect("marks");
            tx.purge(&account, Some(&team), LATE, limit).await.expect("purges");
        })
    };
    let of_account = case("purge", STEP_MAX, account, move |ground| async move {
        let account = account_id(account);
        let mut tx = begin(&ground.store, account.as_str()).await;
        tx.begin_account_purge(&account, LATE).await.expect("marks");
        tx.purge(&account, None, LATE, STEP).await.expect("purges");
    });
    vec![of_team("t1", STEP, STEP_MAX), of_team("t999", 500, 5 * STEP_MAX), of_account]
}

/// Changes of a key that is there.
fn changes_of_keys(account: &'static str, n: u128) -> Vec<Case> {
    let edit = move |what: &'static str, state: Option<ApiKeyState>| {
        case("update_api_key", ONE_MAX, format!("{account}: {what}"), move |ground| async move {
            let mut tx = begin(&ground.store, account).await;
            let before = tx.api_key(&account_id(account), key_id(n)).await.expect("reads").expect("is there");
            let mut after = with_grants(&before, grants(&["q"], &["t1"], &["z"]));
            if let Some(state) = state {
                (after.state, after.delete_time) = (state, Some(LATE));
                after.content.grants = grants(&[], &[], &[]);
            }
            tx.update_api_key(&before, &after).await.expect("updates");
            tx.append(vec![key_event(EventKind::ApiKeyUpdated, &after)]).await.expect("appends");
        })
    };
    vec![
        edit("edited", None),
        edit("deleted", Some(ApiKeyState::Deleted)),
        case("rotate_api_key", TOKENS_MAX, account, move |ground| async move {
            let mut tx = begin(&ground.store, account).await;
            let key = tx.api_key(&account_id(account), key_id(n)).await.expect("reads").expect("is there");
            tx.rotate_api_key(&key, &secret(n, 9), LATE, LATE).await.expect("rotates");
        }),
    ]
}

/// Deletions of what is small, each in one transaction; and what only an account without anything allows.
fn small_deletions() -> Vec<Case> {
    let account = "b7";
    let mut cases = changes! { account;
        delete_account(&account_id(account), LATE) <= ONE_MAX;
        delete_team(&account_id(account), &team_id("t1"), LATE) <= ONE_MAX;
    };
    let account = "a1";
    cases.extend(changes! { account;
        delete_team(&account_id(account), &team_id("t999"), LATE) <= 3_000;
    });
    cases.push(case("append", ONE_MAX, "all roles of an account", |ground| async move {
        let mut tx = begin(&ground.store, "b7").await;
        let stamps = vec![Stamp::Roles(account_id("b7"))];
        tx.append(vec![event(EventKind::AccountCreated, "b7", ("account", "b7"), stamps)]).await.expect("appends");
    }));
    cases.push(case("put_account", ONE_MAX, "new", |ground| async move {
        let mut tx = begin(&ground.store, "new").await;
        tx.put_account(&crate::fixtures::account("new")).await.expect("an account");
    }));
    cases.push(case("put_catalogue", 200, "", |ground| async move {
        let mut tx = begin(&ground.store, "b7").await;
        let catalogue = tx.catalogue().await.expect("a catalogue");
        let roles = [role("owner", RoleKind::Base, &[])];
        tx.put_catalogue(&catalogue.permissions()[..4], &roles).await.expect("a catalogue");
    }));
    cases
}

/// What housekeeping, the follower and a start write, each in transactions of its own.
fn of_replicas() -> Vec<Case> {
    let incarnation = Uuid::from_u128(7);
    vec![
        case("record_usage", ONE_MAX, "", |ground| async move {
            let mark = |n| UsageMark { digest: digest(n, 1), key_id: key_id(n), last_used_time: THEN };
            ground.store.record_usage(&[mark(1), mark(2)]).await.expect("records");
        }),
        case("forget_ended_tokens", ONE_MAX, "none", |ground| async move {
            ground.store.forget_ended_tokens(Timestamp::from_micros(1), STEP).await.expect("forgets");
        }),
        case("forget_ended_tokens", STEP_MAX, "many", |ground| async move {
            ground.store.forget_ended_tokens(LATE, STEP).await.expect("forgets");
        }),
        case("register", ONE_MAX, "", move |ground| async move {
            let (lease, stale_max) = (Duration::from_secs(9), Duration::ZERO);
            let (pepper_ids, name) = (vec!["p1".into()], "host/1".into());
            let registration = Registration { incarnation, lease, stale_max, pepper_ids, name };
            ground.store.register(&registration).await.expect("registers");
        }),
        case("acknowledge", ONE_MAX, "and renew, and what the log has not", move |ground| async move {
            for (renew, number) in [(false, 30_000), (true, 30_000), (false, 70_000)] {
                let applied = Revision { epoch: 1, number };
                let said = Acknowledgement { incarnation, applied, hash: [0; 32], renew };
                ground.store.acknowledge(&said).await.expect("answers");
            }
        }),
        case("evict_replica", ONE_MAX, "", move |ground| async move {
            ground.store.evict_replica(incarnation, 99).await.expect("answers");
        }),
        case("evict_dead_replicas", ONE_MAX, "", |ground| async move {
            ground.store.evict_dead_replicas(|_| false).await.expect("answers");
        }),
        case("deregister", ONE_MAX, "", move |ground| async move {
            ground.store.deregister(incarnation).await.expect("deregisters");
        }),
        case("schema_status", ONE_MAX, "", |ground| async move {
            ground.store.schema_status().await.expect("is known");
        }),
        case("powers", ONE_MAX, "", |ground| async move {
            ground.store.powers().await.expect("are known");
        }),
        case("register_peppers", ONE_MAX, "", |ground| async move {
            ground.store.register_peppers(&[Pepper::new("p9".into(), &[9; 32].into())]).await.expect("registers");
        }),
        case("missing_peppers", ONE_MAX, "of tokens that live under another", |ground| async move {
            let store = store_with(&ground.url, PATIENCE, &["p9"]);
            assert_eq!(store.missing_peppers().await.expect("are known"), ["p1"]);
            Primary::missing_peppers(&store).await.expect("are known");
            store.close();
        }),
    ]
}

/// What the owner of the tables does; and what a server does after it, once.
fn of_operators() -> Vec<Case> {
    vec![
        case("migrate", ONE_MAX, "what is current", |ground| async move {
            migrate::migrate(&ground.url, APP_ROLE, |_| ()).await.expect("migrates");
        }),
        case("open", ONE_MAX, "and what may be archived", |ground| async move {
            let mut archiver = Archiver::open(&ground.url).await.expect("opens");
            archiver.extent().await.expect("extent");
            archiver.at(30_000).await.expect("at");
            archiver.last_older_than(Duration::from_secs(1), 0, 60_000).await.expect("last_older_than");
        }),
        case("remove", 7 * u64::from(archive::BATCH_ROWS_MAX), "a batch", |ground| async move {
            let from = archive::anchor_of(&ground.url).await.expect("anchor_of");
            let number = from.number + i64::from(archive::BATCH_ROWS_MAX);
            let mut archiver = Archiver::open(&ground.url).await.expect("opens");
            archiver.events(from.number, number).await.expect("events");
            archiver.remove(&from, &Anchor { number, ..from }).await.expect("removes");
        }),
        case("events_after", ONE_MAX, "the anchor", |ground| async move {
            let anchor = archive::anchor_of(&ground.url).await.expect("anchor_of");
            ground.store.events_after(anchor.number, 20).await.expect("events");
        }),
        case("events", 200, "with what people typed", |ground| async move {
            let mut tx = begin(&ground.store, "b7").await;
            tx.append(stamping("b7", 76_013)).await.expect("appends");
            tx.commit().await.expect("commits");
            let mut reader = snapshot(&ground.store).await;
            let page = Page { limit: 10, after: Some(60_000) };
            reader.events(&EventFilter::default(), &page, 1_000).await.expect("events");
        }),
        case("record_identity", ONE_MAX, "", |ground| async move {
            ground.store.record_identity().await.expect("records");
        }),
    ]
}

/// Every call.
pub fn all() -> Vec<Case> {
    let of_one =
        |(account, n)| changes(account, n).into_iter().chain(changes_of_keys(account, n)).chain(purges(account));
    let accounts = [("a1", 1), ("b7", 76_013)].into_iter().flat_map(of_one);
    accounts.chain(small_deletions()).chain(of_replicas()).chain(of_operators()).collect()
}
