//! Lists look at a bounded number of rows a page, go on where they ended, and tell of nothing that is invisible.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use latchkey::{
    domain::id::KeyId,
    proto::{ApiKeyState as State, ListApiKeysRequest},
};

use crate::support::{Caller, Server, World, calls::*, world::*};

const ROWS_MAX: usize = 100;
const KEYS: usize = 700;

/// One key as the test knows it, written behind the server's back.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    teams: Vec<&'static str>,
    state: State,
    rare: bool,
}

impl Known {
    fn of(n: usize) -> Self {
        let number = 0x0190_0000_0000_7000_8000_u128 << 48 | n as u128;
        // `red` has few keys, `green` a good part of them, most of those deleted.
        let teams = match n {
            _ if n % 97 == 3 => vec!["green", "red"],
            _ if n % 120 == 7 => vec!["red"],
            _ if n % 3 == 1 => vec!["green"],
            _ if n.is_multiple_of(2) => vec!["blue"],
            _ => vec![],
        };
        let state = match n {
            _ if n % 3 == 1 && n % 30 != 1 => State::Deleted,
            _ if n.is_multiple_of(71) => State::Disabled,
            _ => State::Active,
        };
        Self { id: KeyId::from_uuid(uuid::Uuid::from_u128(number)).to_string(), teams, state, rare: n % 211 == 5 }
    }

    fn rows(&self) -> String {
        let uuid = self.id.parse_key();
        let (state, deleted) = match self.state {
            State::Deleted => ("deleted", "now()"),
            State::Disabled => ("disabled", "NULL"),
            _ => ("active", "NULL"),
        };
        let account_permissions = if self.rare { "{secrets.use}" } else { "{incidents.view}" };
        let team_permissions = if self.teams.is_empty() { "{}" } else { "{secrets.view}" };
        let mut sql = format!(
            "INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, \
             state, token_hint, create_time, update_time, delete_time, rotate_time, revision_epoch, revision_number) \
             VALUES ('{uuid}', '{ACME}', 'k', '', '{{}}', '{account_permissions}', '{team_permissions}', '{state}', 'lk', \
             now(), now(), {deleted}, now(), 1, 1);"
        );
        for team in &self.teams {
            sql += &format!(
                "INSERT INTO api_key_teams (account_id, key_id, team_id) VALUES ('{ACME}', '{uuid}', '{team}');"
            );
        }
        sql
    }
}

trait ParseKey {
    fn parse_key(&self) -> uuid::Uuid;
}

impl ParseKey for String {
    fn parse_key(&self) -> uuid::Uuid {
        KeyId::parse("key_id", self).unwrap().as_uuid()
    }
}

/// A world with many keys in `acme`, newest last, where a page looks at few.
async fn world() -> (World, Vec<Known>) {
    let bounded = |flags: latchkey::settings::Flags| flags.with("list_scan_rows_max", ROWS_MAX.to_string());
    let world = World::on(Server::start_with(bounded).await).await;
    let keys: Vec<_> = (0..KEYS).map(Known::of).collect();
    let rows: String = keys.iter().map(Known::rows).collect();
    world.server.database.execute_as_owner(&format!("BEGIN; {rows} COMMIT")).await;
    (world, keys)
}

/// Every page of a list: its ids, and the place that its token names.
async fn pages(caller: &Caller, request: &ListApiKeysRequest) -> Vec<(Vec<String>, Option<String>)> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(caller, ListApiKeysRequest { page_token, ..request.clone() }).await.unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&page.next_page_token).unwrap();
        let place = bytes.get(16..).map(|place| String::from_utf8(place.to_vec()).unwrap());
        pages.push((page.api_keys.into_iter().map(|key| key.key_id).collect(), place));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
        assert!(pages.len() <= KEYS, "the list ends");
    }
}

fn every_filter() -> Vec<ListApiKeysRequest> {
    let mut requests = Vec::new();
    for show_deleted in [false, true] {
        for permission in ["", "secrets.use", "no.such"] {
            for states in [vec![], vec![State::Disabled], vec![State::Deleted]] {
                if states == [State::Deleted] && !show_deleted {
                    continue;
                }
                for team_id in ["", "red", "green"] {
                    requests.push(ListApiKeysRequest {
                        account_id: ACME.into(),
                        show_deleted,
                        permission: permission.into(),
                        states: states.iter().map(|state| i32::from(*state)).collect(),
                        team_id: team_id.into(),
                        page_size: 20,
                        ..Default::default()
                    });
                }
            }
        }
    }
    requests
}

fn passes(key: &Known, request: &ListApiKeysRequest) -> bool {
    (request.show_deleted || key.state != State::Deleted)
        && (request.team_id.is_empty() || key.teams.contains(&request.team_id.as_str()))
        && match request.permission.as_str() {
            "" => true,
            "secrets.use" => key.rare,
            _ => false,
        }
        && (request.states.is_empty() || request.states.contains(&key.state.into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_every_filter_finds_what_it_finds_in_pages_that_look_at_a_bounded_number_of_keys() {
    let (world, keys) = world().await;
    let callers: [(&str, &[&str]); 3] =
        [("owner", &[]), ("red_manager", &["red"]), ("red_green_manager", &["red", "green"])];
    let mut empty_pages = 0;
    for (user, managed) in callers {
        let visible = |key: &Known| managed.is_empty() || key.teams.iter().any(|team| managed.contains(team));
        let seen: BTreeSet<_> = keys.iter().filter(|key| visible(key)).map(|key| key.id.clone()).collect();
        for request in every_filter() {
            if !managed.is_empty() && !request.team_id.is_empty() && !managed.contains(&request.team_id.as_str()) {
                continue;
            }
            let expected: Vec<_> = keys
                .iter()
                .rev()
                .filter(|key| visible(key) && passes(key, &request))
                .map(|key| key.id.clone())
                .collect();
            let pages = pages(&world.user(user), &request).await;
            let found: Vec<_> = pages.iter().flat_map(|(ids, _)| ids.clone()).collect();
            assert_eq!(found, expected, "{user}: {request:?}");
            // M8: where a page ends is a key that the caller may view.
            for place in pages.iter().filter_map(|(_, place)| place.as_ref()) {
                assert!(seen.contains(place), "{user} hears of {place}: {request:?}");
            }
            // At most as many pages as the share makes of all rows, and as the size makes of what was found.
            let rows = if managed.is_empty() && request.team_id.is_empty() { KEYS } else { KEYS / 2 };
            let most = rows / (ROWS_MAX / 8) + expected.len() / 20 + 2;
            assert!(pages.len() <= most, "{user}: {} pages of {request:?}", pages.len());
            empty_pages += pages.iter().filter(|(ids, place)| ids.is_empty() && place.is_some()).count();
        }
    }
    assert!(empty_pages > 0, "a page that finds nothing in its share says where to go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_a_filter_are_full() {
    let (world, keys) = world().await;
    let request =
        ListApiKeysRequest { account_id: ACME.into(), page_size: 60, show_deleted: true, ..Default::default() };
    for (user, team) in [("owner", None), ("red_manager", Some("red"))] {
        let count = keys.iter().filter(|key| team.is_none_or(|team| key.teams.contains(&team))).count();
        let pages = pages(&world.user(user), &request).await;
        assert_eq!(pages.len(), count.div_ceil(60), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_list_misses_nothing_and_shows_nothing_twice_while_keys_come_and_go() {
    let (world, keys) = world().await;
    let busy = {
        let owner = world.user("owner");
        tokio::spawn(async move {
            for _ in 0..20 {
                let made = create(&owner, ACME, &team_key("k", &[], &["green"], &["secrets.use"])).await.unwrap();
                delete(&owner, ACME, &made.api_key.unwrap().key_id).await.unwrap();
                create(&owner, ACME, &team_key("k", &["secrets.use"], &["red"], &["secrets.use"])).await.unwrap();
            }
        })
    };
    let request = ListApiKeysRequest {
        account_id: ACME.into(),
        permission: "secrets.use".into(),
        page_size: 2,
        ..Default::default()
    };
    for user in ["owner", "red_green_manager"] {
        let found: Vec<_> = pages(&world.user(user), &request).await.into_iter().flat_map(|(ids, _)| ids).collect();
        assert!(found.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice");
        let visible = |key: &Known| user == "owner" || key.teams.iter().any(|team| ["red", "green"].contains(team));
        for key in keys.iter().filter(|key| key.rare && key.state != State::Deleted && visible(key)) {
            assert!(found.contains(&key.id), "{user} misses {key:?}");
        }
    }
    busy.await.unwrap();
}
