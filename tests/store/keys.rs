//! Keys and their tokens.

use std::collections::BTreeSet;

use crate::{database::fresh_database, fixtures::*};
use latchkey::{
    app::ports::{ApiKeyFilter, Lane, Page, Reader, Store, UsageMark},
    domain::{
        api_key::{ApiKey, ApiKeyState},
        authority::Managed,
        log::event::{EventKind, Principal},
        time::{Span, Timestamp},
    },
    verify::primary::Primary,
};

fn page(limit: u32) -> Page<latchkey::domain::id::KeyId> {
    Page { limit, after: None }
}

fn minutes(n: u32) -> Timestamp {
    THEN.saturating_add(Span::from_secs(60 * n))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reads_back_as_stored_and_is_stamped_with_its_event() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    let mut key = api_key(1, "acme", grants(&["incidents.view"], &["t1", "t2"], &["catalog.edit"]));
    key.creator = Some(Principal { key_id: key_id(9), account_id: account_id("acme"), user_id: Some(user_id("u1")) });
    key.content.expire_time = Some(minutes(5));
    let revision = put_key(&db.store, &key, 1).await;
    let stored = get_key(&db.store, &key).await;
    assert_eq!(stored, ApiKey { revision, ..key });
    let account = snapshot(&db.store).await.account(&account_id("acme")).await.unwrap().unwrap();
    assert_eq!(account.api_key_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_what_differs_and_a_deleted_key_is_uncounted_once() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2", "t3"]).await;
    let key = api_key(1, "acme", grants(&["a"], &["t1", "t2"], &["b"]));
    put_key(&db.store, &key, 1).await;
    let edited = with_grants(&key, grants(&[], &["t2", "t3"], &["c"]));
    update_key(&db.store, &key, &edited).await;
    assert_eq!(get_key(&db.store, &key).await.content, edited.content);

    let unscoped = with_grants(&edited, grants(&["a"], &[], &[]));
    update_key(&db.store, &edited, &unscoped).await;
    assert_eq!(get_key(&db.store, &key).await.content.grants.team_scope, None);

    let deleted = ApiKey { state: ApiKeyState::Deleted, delete_time: Some(minutes(1)), ..unscoped.clone() };
    update_key(&db.store, &unscoped, &deleted).await;
    let count = |mut reader: Box<dyn Reader>| async move {
        reader.account(&account_id("acme")).await.unwrap().unwrap().api_key_count
    };
    assert_eq!(count(snapshot(&db.store).await).await, 0);
    // The same change judged on the state before it is refused, not applied twice.
    let mut tx = begin(&db.store, "acme").await;
    assert!(tx.update_api_key(&unscoped, &deleted).await.is_err());
    drop(tx);
    assert_eq!(count(snapshot(&db.store).await).await, 0);
    assert_eq!(get_key(&db.store, &key).await.state, ApiKeyState::Deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_rotation_retires_the_current_token_and_ends_the_retiring_one() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    let key = api_key(1, "acme", grants(&["a"], &[], &[]));
    put_key(&db.store, &key, 1).await;
    let mut rotated = key.clone();
    for (m, now, end) in [(1, minutes(1), minutes(31)), (2, minutes(2), minutes(32))] {
        rotated.rotate_time = now;
        rotated.token_hint = format!("lk_…{m}");
        let mut tx = begin(&db.store, "acme").await;
        tx.rotate_api_key(&rotated, &secret(1, m), now, end).await.unwrap();
        tx.append(vec![key_event(EventKind::ApiKeyRotated, &rotated)]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut ends = Vec::new();
    for m in 0..3 {
        let fill = db.store.fill(&[digest(1, m)], &sent()).await.unwrap();
        ends.push(fill.token.expect("on record").1.token_end_time);
    }
    assert_eq!(ends, [Some(minutes(2)), Some(minutes(32)), None]);

    let usage = |m, last_used_time| UsageMark { digest: digest(1, m), key_id: key.key_id, last_used_time };
    db.store.record_usage(&[usage(1, minutes(5)), usage(2, minutes(4)), usage(0, minutes(1))]).await.unwrap();
    db.store.record_usage(&[usage(1, minutes(3)), usage(1, minutes(4))]).await.unwrap();
    let stored = get_key(&db.store, &key).await;
    assert_eq!(stored.token_hint, "lk_…2");
    assert_eq!(stored.retiring_end_time, Some(minutes(32)));
    assert_eq!(stored.current_token_last_used_time, Some(minutes(4)));
    assert_eq!(stored.retiring_token_last_used_time, Some(minutes(5)));
    assert_eq!(stored.last_used_time, Some(minutes(5)));

    let mut tx = begin(&db.store, "acme").await;
    tx.end_retiring_tokens(key.key_id, minutes(10)).await.unwrap();
    tx.end_retiring_tokens(key.key_id, minutes(20)).await.unwrap();
    assert!(tx.note_presented(&digest(1, 1), minutes(60)).await.unwrap());
    assert!(!tx.note_presented(&digest(1, 1), minutes(119)).await.unwrap());
    assert!(tx.note_presented(&digest(1, 1), minutes(120)).await.unwrap());
    assert!(!tx.note_presented(&digest(1, 2), minutes(60)).await.unwrap(), "the current token has not ended");
    tx.commit().await.unwrap();
    assert_eq!(get_key(&db.store, &key).await.retiring_end_time, Some(minutes(10)));

    assert_eq!(db.store.forget_ended_tokens(minutes(11), 1).await.unwrap(), 1);
    assert_eq!(db.store.forget_ended_tokens(minutes(11), 9).await.unwrap(), 1);
    assert_eq!(db.store.forget_ended_tokens(minutes(11), 9).await.unwrap(), 0);
    assert!(db.store.fill(&[digest(1, 0)], &sent()).await.unwrap().token.is_none());
    assert!(db.store.fill(&[digest(1, 2)], &sent()).await.unwrap().token.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_closes_under_the_catalogue_of_its_snapshot() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    let key = api_key(1, "acme", grants(&["incidents.edit"], &["t1"], &["catalog.edit"]));
    let revision = put_key(&db.store, &key, 1).await;
    let fill = db.store.fill(&[digest(1, 0)], &sent()).await.unwrap();
    assert_eq!((fill.revision, fill.catalogue.permissions().len()), (revision, 0));
    assert!(fill.token.unwrap().1.account_permissions.is_empty(), "no catalogue, no authority");

    for implies in [vec![], vec!["incidents.view".to_owned()]] {
        apply_catalogue(&db.store, implies.clone()).await;
        let fill = db.store.fill(&[digest(2, 9), digest(1, 0)], &sent()).await.unwrap();
        let (matched, facts) = fill.token.unwrap();
        assert_eq!(matched, digest(1, 0));
        assert_eq!(facts.team_ids[..], [team_id("t1")]);
        assert_eq!(fill.catalogue.names(&facts.team_permissions), ["catalog.edit"]);
        assert_eq!(fill.catalogue.names(&facts.account_permissions).len(), 1 + implies.len());
        let mut reader = snapshot(&db.store).await;
        assert_eq!(reader.token(&digest(1, 0)).await.unwrap(), Some(facts));
        assert_eq!(reader.catalogue().await.unwrap().revision(), fill.revision);
    }
    assert!(db.store.fill(&[digest(2, 9)], &sent()).await.unwrap().token.is_none());
}

async fn apply_catalogue(store: &latchkey::store::PostgresStore, implies: Vec<String>) {
    use latchkey::{
        app::ports::{Append, Locks, Stamp},
        domain::permissions::catalogue::{Catalogue, PermissionSpec, Usage, plan},
    };
    struct Unused;
    impl Usage for Unused {
        fn held_on_teams(&self, _: &str) -> bool {
            false
        }
    }
    let spec = |name: &str, team_scopable, implies| PermissionSpec {
        name: name.into(),
        description: String::new(),
        team_scopable,
        implies,
        retired: false,
    };
    let specs = vec![
        spec("incidents.view", false, vec![]),
        spec("incidents.edit", false, implies),
        spec("catalog.edit", true, vec![]),
    ];
    let locks = Locks { catalogue_exclusive: true, ..Locks::default() };
    let mut tx = store.begin(Lane::Mutations, "apply_catalogue", false, &locks).await.unwrap();
    let current: std::sync::Arc<Catalogue> = tx.catalogue().await.unwrap();
    let permissions = plan(&current, specs, &Unused).unwrap();
    tx.put_catalogue(&permissions, &[role("owner", latchkey::domain::directory::RoleKind::Base, &[])]).await.unwrap();
    assert_eq!(tx.catalogue().await.unwrap().permissions().len(), 3, "a transaction sees its own change");
    let mut event = event(EventKind::CatalogueApplied, "acme", ("catalogue", ""), vec![Stamp::Catalogue]);
    event = Append { draft: latchkey::domain::log::event::EventDraft { account_id: None, ..event.draft }, ..event };
    tx.append(vec![event]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_newest_first_page_by_page_and_filtered() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    put_account(&db.store, "other", &[]).await;
    put_key(&db.store, &api_key(100, "other", grants(&[], &[], &[])), 100).await;
    for n in 1..=7 {
        let teams: &[&str] = if n % 2 == 0 { &["t1"] } else { &["t1", "t2"] };
        let permission = if n < 4 { "b" } else { "c" };
        put_key(&db.store, &api_key(n, "acme", grants(&["a"], teams, &[permission])), n).await;
    }
    let disabled = get_key(&db.store, &api_key(3, "acme", grants(&[], &[], &[]))).await;
    update_key(&db.store, &disabled, &ApiKey { state: ApiKeyState::Disabled, ..disabled.clone() }).await;
    let gone = get_key(&db.store, &api_key(4, "acme", grants(&[], &[], &[]))).await;
    let deleted = ApiKey { state: ApiKeyState::Deleted, delete_time: Some(minutes(1)), ..gone.clone() };
    update_key(&db.store, &gone, &deleted).await;

    let mut reader = snapshot(&db.store).await;
    let acme = account_id("acme");
    let mut listed = async |filter: ApiKeyFilter, page: Page<_>| {
        let keys = reader.api_keys(&acme, &Managed::Account, &filter, &page, 10_000).await.unwrap().items;
        keys.iter().map(|key| key.key_id.as_uuid().as_u128()).collect::<Vec<_>>()
    };
    let all = ApiKeyFilter::default;
    assert_eq!(listed(all(), page(3)).await, [7, 6, 5]);
    assert_eq!(listed(all(), Page { limit: 3, after: Some(key_id(5)) }).await, [3, 2, 1]);
    assert_eq!(listed(ApiKeyFilter { show_deleted: true, ..all() }, page(50)).await, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(listed(ApiKeyFilter { team_id: Some(team_id("t2")), ..all() }, page(50)).await, [7, 5, 3, 1]);
    assert_eq!(listed(ApiKeyFilter { permission: Some("b".into()), ..all() }, page(50)).await, [3, 2, 1]);
    assert_eq!(listed(ApiKeyFilter { permission: Some("a".into()), ..all() }, page(2)).await, [7, 6]);
    let disabled = ApiKeyFilter { states: [ApiKeyState::Disabled].into(), ..all() };
    assert_eq!(listed(disabled, page(50)).await, [3]);
    assert_eq!(reader.api_keys_on_team(&acme, &team_id("t1"), 10).await.unwrap(), 6);
}

/// M3 is decided in two places, Rust and SQL: they must agree on every key.
#[tokio::test(flavor = "multi_thread")]
async fn m3_visibility_in_sql_is_managed_may_view() {
    const TEAMS: [&str; 4] = ["t1", "t2", "t3", "t4"];
    let db = fresh_database().await;
    put_account(&db.store, "acme", &TEAMS).await;
    let subset = |bits: u8| TEAMS.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, t)| *t);
    let mut keys = Vec::new();
    for n in 0..32u8 {
        let teams: Vec<_> = subset(n % 16).collect();
        let permissions: &[&str] = if teams.is_empty() { &[] } else { &["b"] };
        let account: &[&str] = if n < 16 { &[] } else { &["a"] };
        let key = api_key(u128::from(n) + 1, "acme", grants(account, &teams, permissions));
        put_key(&db.store, &key, u128::from(n) + 1).await;
        keys.push(key);
    }
    let mut reader = snapshot(&db.store).await;
    for bits in 0..=16u8 {
        let managed = match bits {
            0 => Managed::Nothing,
            16 => Managed::Account,
            bits => Managed::Teams(subset(bits).map(team_id).collect()),
        };
        let seen = reader
            .api_keys(&account_id("acme"), &managed, &ApiKeyFilter::default(), &page(100), 10_000)
            .await
            .unwrap()
            .items;
        let seen: BTreeSet<_> = seen.iter().map(|key| key.key_id).collect();
        let may: BTreeSet<_> =
            keys.iter().filter(|key| managed.may_view(&key.content.grants)).map(|key| key.key_id).collect();
        assert_eq!(seen, may, "{managed:?}");
    }
}
