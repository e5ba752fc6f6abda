//! What each read looks at, and how, where one account is huge beside many small ones: no scan, and few rows.
//!
//! Every statement that the read methods of the ports run is explained as it runs ([`explained`](crate::explained)), for
//! the huge account and for a small one, planned for its values and for any, with statistics and without.

use std::collections::BTreeSet;

use latchkey::{
    app::ports::{ApiKeyFilter, EventFilter, Page, Replicas},
    domain::{api_key::ApiKeyState, authority::Managed, id::TeamId, log::event::EventKind},
    verify::primary::Primary,
};

use crate::{
    explained::{Case, case},
    fixtures::*,
};

/// Rows that a page of a list may look at, here.
const ROWS_MAX: u32 = 1_000;
/// What one call may read: three looks (a page, a wider one, where it ended), and what hangs on the rows of a page.
const COST_MAX: u64 = 6 * ROWS_MAX as u64;
/// What a page without filters may read: its rows, and what hangs on them.
const PAGE_MAX: u64 = 1_500;
/// What a call reads that asks for one thing.
const ONE_MAX: u64 = 100;
const PAGE: u32 = 51;

/// Calls of methods of the reader: in snapshots, and in transactions, which are planned otherwise.
macro_rules! reads {
    ($($method:ident($($argument:expr),*) <= $most:expr;)*) => {(
        vec![$(case(stringify!($method), $most, concat!("snapshot: ", stringify!($($argument),*)), move |ground| async move {
            let mut reader = snapshot(&ground.store).await;
            reader.$method($($argument),*).await.expect(stringify!($method));
        })),*],
        vec![$(case(stringify!($method), $most, concat!("transaction: ", stringify!($($argument),*)), move |ground| async move {
            let mut tx = begin(&ground.store, "b9").await;
            tx.$method($($argument),*).await.expect(stringify!($method));
        })),*],
    )};
}

fn first<Cursor>() -> Page<Cursor> {
    Page { limit: PAGE, after: None }
}

fn after<Cursor>(cursor: Cursor) -> Page<Cursor> {
    Page { limit: PAGE, after: Some(cursor) }
}

/// Calls that ask for one thing; of the account's key, and whatever other things it has.
fn things(account: &'static str, key: u128) -> Vec<Case> {
    let (in_snapshots, in_transactions) = reads! {
        head() <= ONE_MAX;
        head_hash() <= ONE_MAX;
        anchor() <= ONE_MAX;
        now() <= ONE_MAX;
        catalogue() <= ONE_MAX;
        default_roles() <= ONE_MAX;
        held_on_teams(&names(&["x.z", "x.q", "no.such"])) <= 2_100;
        caller(&digest(1, 1)) <= ONE_MAX;
        token(&digest(1, 1)) <= ONE_MAX;
        user_principal(&account_id(account), &user_id("u1")) <= ONE_MAX;
        account(&account_id(account)) <= ONE_MAX;
        api_key(&account_id(account), key_id(key)) <= ONE_MAX;
        api_keys_on_team(&account_id(account), &team_id("t1"), 100) <= COST_MAX;
        api_keys_on_team(&account_id(account), &team_id("t999"), 100) <= PAGE_MAX;
        tokens_of_api_key(key_id(key), 100) <= 200;
        purging_accounts(10) <= ONE_MAX;
        api_keys_due(LATE, 10) <= ONE_MAX;
        team(&account_id(account), &team_id("t1")) <= ONE_MAX;
        missing_teams(&account_id(account), &[team_id("t1"), team_id("x")].into()) <= ONE_MAX;
        role(&account_id(account), &role_id("owner")) <= ONE_MAX;
        role_in_use(&account_id(account), &role_id("owner")) <= ONE_MAX;
        role_in_use(&account_id(account), &role_id("manager")) <= ONE_MAX;
        role_in_use(&account_id(account), &role_id("r5")) <= ONE_MAX;
        user(&account_id(account), &user_id("u1")) <= ONE_MAX;
    };
    in_snapshots.into_iter().chain(in_transactions).collect()
}

/// Pages without filters: no transaction asks for one.
fn pages(account: &'static str) -> Vec<Case> {
    let (in_snapshots, _) = reads! {
        accounts(&first()) <= PAGE_MAX;
        accounts(&after(account_id("b5"))) <= PAGE_MAX;
        // Whatever comes behind it is deleted.
        accounts(&after(account_id("b999"))) <= PAGE_MAX;
        teams(&account_id(account), &first()) <= PAGE_MAX;
        teams(&account_id(account), &after(team_id("t5"))) <= PAGE_MAX;
        roles(&account_id(account), &first()) <= PAGE_MAX;
        roles(&account_id(account), &after(role_id("r5"))) <= PAGE_MAX;
        users(&account_id(account), &first()) <= PAGE_MAX;
        users(&account_id(account), &after(user_id("u5"))) <= PAGE_MAX;
    };
    in_snapshots
}

fn key_lists(account: &'static str) -> Vec<Case> {
    let many = |n: u32| Managed::Teams((1..=n).map(|t| team_id(&format!("t{t}"))).collect::<BTreeSet<TeamId>>());
    let few: Managed = Managed::Teams([team_id("t1")].into());
    let mut cases = Vec::new();
    let of_all = if account == "a1" { vec![many(200), many(1_000)] } else { vec![] };
    for visible in [Managed::Account, few, many(5)].into_iter().chain(of_all) {
        for team in [None, Some(team_id("t1"))] {
            for (permission, states) in [(None, None), (Some("no.such"), None), (None, Some(ApiKeyState::Disabled))] {
                for show_deleted in [false, true] {
                    for after in [None, Some(key_id(30_000))] {
                        let filter = ApiKeyFilter {
                            team_id: team.clone(),
                            permission: permission.map(str::to_owned),
                            states: states.into_iter().collect(),
                            show_deleted,
                        };
                        // With a thousand teams, each is looked at sixteen rows deep; and a page may be had twice.
                        let teams = if let Managed::Teams(teams) = &visible { teams.len() as u64 } else { 0 };
                        let most = COST_MAX + 3 * 16 * teams;
                        let what = format!("{account}, {teams} teams, {filter:?}, after {after:?}");
                        let (visible, page) = (visible.clone(), Page { limit: PAGE, after });
                        cases.push(case("api_keys", most, what, move |ground| {
                            let (visible, filter, page) = (visible.clone(), filter.clone(), page.clone());
                            async move {
                                let mut reader = snapshot(&ground.store).await;
                                let account = account_id(account);
                                reader.api_keys(&account, &visible, &filter, &page, ROWS_MAX).await.expect("a page");
                            }
                        }));
                    }
                }
            }
        }
    }
    cases
}

fn event_lists() -> Vec<Case> {
    let mut cases = Vec::new();
    for account in [None, Some("a1"), Some("b7"), Some("c1")] {
        for key in [None, Some(key_id(1)), Some(key_id(99_999))] {
            for kinds in [&[][..], &[EventKind::TeamDeleted]] {
                for after in [None, Some(30_000)] {
                    let filter = EventFilter {
                        account_id: account.map(account_id),
                        kinds: kinds.iter().copied().collect(),
                        key_id: key,
                    };
                    let what = format!("{filter:?}, after {after:?}");
                    cases.push(case("events", COST_MAX, what, move |ground| {
                        let (filter, page) = (filter.clone(), Page { limit: PAGE, after });
                        async move {
                            snapshot(&ground.store).await.events(&filter, &page, ROWS_MAX).await.expect("a page");
                        }
                    }));
                }
            }
        }
    }
    cases
}

/// What a verification, the follower and a barrier read.
fn primary_reads() -> Vec<Case> {
    vec![
        case("fill", ONE_MAX, "known, unknown", |ground| async move {
            ground.store.fill(&[digest(1, 1), digest(2, 2)], &sent()).await.expect("filled");
        }),
        case("head", ONE_MAX, "of the primary", |ground| async move {
            Primary::head(&ground.store, &sent()).await.expect("a head");
        }),
        case("events_after", 200, "a page", |ground| async move {
            ground.store.events_after(30_000, 100).await.expect("events");
        }),
        case("refresh", ONE_MAX, "", |ground| async move {
            ground.store.refresh().await.expect("a catalogue");
        }),
        case("catalogue", ONE_MAX, "of the follower", |ground| async move {
            Primary::catalogue(&ground.store).await.expect("a catalogue");
        }),
        case("replicas", ONE_MAX, "", |ground| async move {
            ground.store.replicas().await.expect("replicas");
        }),
    ]
}

/// Every call.
pub fn all() -> Vec<Case> {
    let of_one = |(account, key)| things(account, key).into_iter().chain(pages(account)).chain(key_lists(account));
    [("a1", 1), ("b7", 76_013), ("c1", 60_002)]
        .into_iter()
        .flat_map(of_one)
        .chain(event_lists())
        .chain(primary_reads())
        .collect()
}
