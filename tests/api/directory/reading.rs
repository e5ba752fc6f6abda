//! Who may read and write a directory, and how its lists page.

use latchkey::proto::{GetCatalogueRequest, ListAccountsRequest, ListRolesRequest, ListTeamsRequest, ListUsersRequest};

use super::*;

async fn list_teams(caller: &Caller, account: &str, size: i32, token: &str) -> Result<(Vec<String>, String), Status> {
    let request = ListTeamsRequest { account_id: account.into(), page_size: size, page_token: token.into() };
    let page = caller.directory().list_teams(request).await?.into_inner();
    Ok((page.teams.into_iter().map(|team| team.team_id).collect(), page.next_page_token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_own_managers_read_its_directory_and_no_other() {
    let world = World::start().await;
    let owner = world.user("owner");
    let manager = mint(&owner, &key("m", &["api_keys.manage"])).await.expect("a key");
    let team_manager = mint(&owner, &team_key("m", &[], &["red"], &["api_keys.manage"])).await.expect("a key");
    let reader = mint(&owner, &key("k", &["settings.manage"])).await.expect("a key");
    let callers = [&manager, &team_manager].map(|made| world.server.caller(&made.token));
    for reader in [&callers[0], &callers[1], &world.directory, &world.server.operator] {
        get_account(reader, ACME).await.expect("an account");
        get_team(reader, "blue").await.expect("a team");
        get_role(reader, "owner").await.expect("a role");
        get_user(reader, "standard").await.expect("a user");
        reader.directory().get_catalogue(GetCatalogueRequest {}).await.expect("the catalogue");
        for id in ["nowhere", "red"] {
            not_found(get_role(reader, id).await);
            not_found(get_user(reader, id).await);
        }
        not_found(get_team(reader, "nowhere").await);
        not_found(get_account(reader, "no-such-account").await);
    }
    for reader in &callers {
        not_found(get_account(reader, OTHER).await);
        not_found(list_teams(reader, OTHER, 0, "").await);
        denied(reader.directory().list_accounts(ListAccountsRequest::default()).await, "system.directory");
        // Reading is all: writes are the product's.
        denied(put_team(reader, team("red", "mine")).await, "system.directory");
        denied(put_user(reader, user("standard", "owner")).await, "system.directory");
        denied(delete_team(reader, "red", "").await, "system.directory");
        not_found(put_account(reader, account(OTHER, "mine")).await);
    }
    let reader = world.server.caller(&reader.token);
    denied(get_account(&reader, ACME).await, "api_keys.manage");
    denied(list_teams(&reader, ACME, 0, "").await, "api_keys.manage");
    denied(reader.directory().get_catalogue(GetCatalogueRequest {}).await, "api_keys.manage");
    not_found(get_account(&reader, OTHER).await);
    not_found(get_account(&world.verifier, ACME).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_page_in_order_of_id_and_show_each_object_once() {
    let world = World::start().await;
    let directory = &world.directory;
    let teams: Vec<_> = (0..60).map(|i| team(&format!("t{i:02}"), "")).collect();
    put_teams(directory, teams).await.expect("teams");
    let (first, next) = list_teams(directory, ACME, 0, "").await.expect("a page");
    assert_eq!((first.len(), next.is_empty()), (50, false), "0 means 50");
    let (all, end) = list_teams(directory, ACME, 5_000, "").await.expect("a page");
    assert_eq!((all.len(), end.as_str()), (63, ""), "above 1,000 means 1,000");
    assert!(all.is_sorted());
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        // The size may differ from page to page.
        let (page, next) = list_teams(directory, ACME, 7 + paged.len() as i32 % 3, &token).await.expect("a page");
        paged.extend(page);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
    // A token belongs to its list.
    bad_field(list_teams(directory, OTHER, 0, &next).await, "page_token");
    let users = ListUsersRequest { account_id: ACME.into(), page_token: next.clone(), ..Default::default() };
    bad_field(directory.directory().list_users(users).await, "page_token");
    let roles = ListRolesRequest { account_id: ACME.into(), page_token: "x".into(), ..Default::default() };
    bad_field(directory.directory().list_roles(roles).await, "page_token");
    bad_field(list_teams(directory, ACME, -1, "").await, "page_size");
    // And carries no authority.
    denied(list_teams(&world.server.caller(&reader(&world).await), ACME, 0, &next).await, "api_keys.manage");
}

async fn reader(world: &World) -> String {
    mint(&world.user("owner"), &key("k", &[])).await.expect("a key").token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_roles_and_users_page_too() {
    let world = World::start().await;
    let directory = &world.directory;
    let (mut accounts, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListAccountsRequest { page_size: 1, page_token: token };
        let page = directory.directory().list_accounts(request).await.expect("a page").into_inner();
        accounts.extend(page.accounts.into_iter().map(|account| account.account_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(accounts.is_sorted());
    for id in [ACME, OTHER] {
        assert_eq!(accounts.iter().filter(|account| *account == id).count(), 1, "{accounts:?}");
    }
    let request = ListRolesRequest { account_id: ACME.into(), page_size: 3, ..Default::default() };
    let first = directory.directory().list_roles(request.clone()).await.expect("a page").into_inner();
    let request = ListRolesRequest { page_token: first.next_page_token, ..request };
    let rest = directory.directory().list_roles(request).await.expect("a page").into_inner();
    let ids: Vec<_> = first.roles.iter().chain(&rest.roles).map(|role| role.role_id.as_str()).collect();
    assert_eq!(
        (ids.as_slice(), rest.next_page_token.as_str()),
        (&["admin", "manager", "member", "owner", "standard"][..], "")
    );
    let request = ListUsersRequest { account_id: ACME.into(), page_size: 4, ..Default::default() };
    let first = directory.directory().list_users(request.clone()).await.expect("a page").into_inner();
    let request = ListUsersRequest { page_token: first.next_page_token, ..request };
    let rest = directory.directory().list_users(request).await.expect("a page").into_inner();
    let ids: Vec<_> = first.users.iter().chain(&rest.users).map(|user| user.user_id.as_str()).collect();
    assert_eq!(ids, ["admin", "gone", "owner", "red_green_manager", "red_manager", "standard"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_only_judges_and_changes_nothing() {
    let world = World::start().await;
    let before = head(&world).await;
    let directory = || world.directory.directory();
    let teams = |name: &str| UpsertTeamRequest {
        account_id: ACME.into(),
        team: Some(team("new", name)),
        validate_only: true,
        ..Default::default()
    };
    directory().upsert_team(teams("New")).await.expect("good");
    bad_field(directory().upsert_team(teams("bad\nname")).await, "team.display_name");
    let accounts =
        UpsertAccountRequest { account: Some(account("new", "New")), validate_only: true, ..Default::default() };
    directory().upsert_account(accounts).await.expect("good");
    let roles = |kind| UpsertRoleRequest {
        account_id: ACME.into(),
        role: Some(role("owner", kind, &[])),
        validate_only: true,
        ..Default::default()
    };
    directory().upsert_role(roles(RoleKind::Base)).await.expect("good");
    bad_field(directory().upsert_role(roles(RoleKind::Team)).await, "role.kind");
    let users = |base: &str| UpsertUserRequest {
        account_id: ACME.into(),
        user: Some(user("new", base)),
        validate_only: true,
        ..Default::default()
    };
    directory().upsert_user(users("owner")).await.expect("good");
    bad_field(directory().upsert_user(users("nowhere")).await, "user.base_role_id");
    assert_eq!(head(&world).await, before);
    not_found(get_team(&world.directory, "new").await);
    not_found(get_user(&world.directory, "new").await);
    not_found(get_account(&world.directory, "new").await);
    assert!(get_role(&world.directory, "owner").await.expect("a role").all_permissions);
}
