//! Accounts, teams, roles, users.

use latchkey::{
    app::ports::{Lane, Page, UserPrincipal},
    domain::{
        api_key::ApiKeyState,
        directory::{AccountState, RolePermissions, UserState},
        log::event::EventKind,
    },
};

use crate::{database::fresh_database, fixtures::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reads_back_and_an_upsert_replaces_it_whole() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    let acme = account_id("acme");
    let before = user("u1", "standard", &["extra"], &[("t1", "lead"), ("t2", "lead")]);
    let after = user("u1", "owner", &[], &[("t2", "lead")]);
    for wanted in [before, after] {
        let mut tx = begin(&db.store, "acme").await;
        tx.put_users(&acme, &[wanted.clone(), user("u2", "owner", &["extra"], &[])]).await.unwrap();
        tx.commit().await.unwrap();
        let mut reader = snapshot(&db.store).await;
        assert_eq!(reader.user(&acme, &wanted.user_id).await.unwrap().unwrap(), wanted);
        assert_eq!(reader.users(&acme, &Page { limit: 9, after: None }).await.unwrap().len(), 2);
        let second = reader.users(&acme, &Page { limit: 9, after: Some(user_id("u1")) }).await.unwrap();
        assert_eq!(second.len(), 1);
    }
    let mut reader = snapshot(&db.store).await;
    assert!(reader.role_in_use(&acme, &role_id("extra")).await.unwrap());
    assert!(reader.role_in_use(&acme, &role_id("owner")).await.unwrap());
    assert!(!reader.role_in_use(&acme, &role_id("standard")).await.unwrap());
    let UserPrincipal { state, account_state, roles } =
        reader.user_principal(&acme, &user_id("u1")).await.unwrap().unwrap();
    assert_eq!((state, account_state), (UserState::Active, AccountState::Active));
    let named = |list: &[&str]| RolePermissions::Named(names(list));
    assert_eq!(roles, [(named(&[]), None), (named(&["catalog.edit"]), Some(team_id("t2")))]);
    assert!(reader.user_principal(&acme, &user_id("nobody")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_deleted_team_is_taken_from_all_keys_and_users() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    put_account(&db.store, "other", &["t1"]).await;
    let acme = account_id("acme");
    let both = api_key(1, "acme", grants(&[], &["t1", "t2"], &["b"]));
    let only = api_key(2, "acme", grants(&["a"], &["t1"], &["b"]));
    let none = api_key(3, "acme", grants(&["a"], &["t2"], &["b"]));
    let foreign = api_key(4, "other", grants(&[], &["t1"], &["b"]));
    for (n, key) in [(1, &both), (2, &only), (3, &none), (4, &foreign)] {
        put_key(&db.store, key, n).await;
    }
    let mut tx = begin(&db.store, "acme").await;
    tx.put_users(&acme, &[user("u1", "owner", &[], &[("t1", "lead"), ("t2", "lead")])]).await.unwrap();
    let removal = tx.delete_team(&acme, &team_id("t1"), THEN).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(removal.key_ids, [key_id(1), key_id(2)]);
    assert_eq!(removal.user_ids, [user_id("u1")]);
    let grants_of = async |key| get_key(&db.store, key).await.content.grants;
    assert_eq!(grants_of(&both).await, grants(&[], &["t2"], &["b"]));
    assert_eq!(grants_of(&only).await, grants(&["a"], &[], &[]));
    assert_eq!(grants_of(&none).await, none.content.grants);
    assert_eq!(grants_of(&foreign).await, foreign.content.grants);
    let mut reader = snapshot(&db.store).await;
    assert!(reader.team(&acme, &team_id("t1")).await.unwrap().is_none());
    let asked = [team_id("t1"), team_id("t2"), team_id("t9")].into();
    let missing = reader.missing_teams(&acme, &asked).await.unwrap();
    assert_eq!(missing, [team_id("t1"), team_id("t9")].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_deleted_account_takes_everything_in_it_and_keeps_its_id() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    let acme = account_id("acme");
    let key = api_key(1, "acme", grants(&["a"], &["t1"], &["b"]));
    put_key(&db.store, &key, 1).await;
    let mut tx = begin(&db.store, "acme").await;
    tx.put_users(&acme, &[user("u1", "owner", &["extra"], &[("t1", "lead")])]).await.unwrap();
    assert_eq!(tx.delete_account(&acme, THEN).await.unwrap(), [key_id(1)]);
    tx.append(vec![event(EventKind::AccountDeleted, "acme", ("account", "acme"), vec![])]).await.unwrap();
    tx.commit().await.unwrap();

    let mut reader = snapshot(&db.store).await;
    let account = reader.account(&acme).await.unwrap().unwrap();
    assert_eq!((account.state, account.api_key_count), (AccountState::Deleted, 0));
    assert!(reader.user_principal(&acme, &user_id("u1")).await.unwrap().is_none());
    assert!(reader.roles(&acme, &Page { limit: 9, after: None }).await.unwrap().is_empty());
    assert!(reader.teams(&acme, &Page { limit: 9, after: None }).await.unwrap().is_empty());
    assert!(reader.accounts(&Page { limit: 9, after: None }).await.unwrap().is_empty());
    let stored = get_key(&db.store, &key).await;
    assert_eq!((stored.state, stored.delete_time), (ApiKeyState::Deleted, Some(THEN)));
    assert_eq!(stored.content.grants.team_scope, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_names_held_on_teams_are_found_unless_the_key_is_deleted() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    put_key(&db.store, &api_key(1, "acme", grants(&["a"], &["t1"], &["b"])), 1).await;
    let asked = names(&["a", "b", "catalog.edit", "incidents.view"]);
    let held = async || snapshot(&db.store).await.held_on_teams(&asked).await.unwrap();
    assert_eq!(held().await, names(&["b", "catalog.edit"]));
    let mut tx = begin(&db.store, "acme").await;
    tx.delete_account(&account_id("acme"), THEN).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(held().await, names(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_creators_of_one_account_one_loses_and_learns_so() {
    use latchkey::app::{
        error::StoreError,
        ports::{Locks, Store},
    };
    let db = fresh_database().await;
    let mut first = begin(&db.store, "acme").await;
    let mut second = begin(&db.store, "acme").await;
    assert!(second.account(&account_id("acme")).await.unwrap().is_none());
    first.put_account(&account("acme")).await.unwrap();
    let racing = tokio::spawn(async move { second.put_account(&account("acme")).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    first.commit().await.unwrap();
    assert!(matches!(racing.await.unwrap(), Err(StoreError::Conflict(_))));
    // An existing row is replaced, but neither its count nor its creation.
    put_key(&db.store, &api_key(1, "acme", grants(&[], &[], &[])), 1).await;
    let mut tx = db.store.begin(Lane::Mutations, "test", false, &Locks::default()).await.unwrap();
    let mut changed = account("acme");
    changed.display_name = "Changed".into();
    changed.state = AccountState::Suspended;
    tx.put_account(&changed).await.unwrap();
    let stored = tx.account(&account_id("acme")).await.unwrap().unwrap();
    assert_eq!((stored.display_name.as_str(), stored.state), ("Changed", AccountState::Suspended));
    assert_eq!((stored.api_key_count, stored.create_time), (1, THEN));
}
