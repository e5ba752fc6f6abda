//! What must hold after a restart.

use std::collections::{BTreeMap, BTreeSet};

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use latchkey::proto::{
    Event, EventKind, GetAccountRequest, GetCatalogueRequest, ListApiKeysRequest, ListRolesRequest, ListTeamsRequest,
    ListUsersRequest, TokenCheck, VerificationOutcome, VerifyEventChainRequest,
};

use crate::{
    clients::{ACCOUNT, Ack, Known, SIDE_ACCOUNT, Seen},
    model::{Model, number},
    support::{
        Caller,
        calls::requests::{self, PAGE_SIZE_MAX},
    },
};

/// The log as it was read so far, and the state that it tells.
pub struct Checker {
    model: Model,
    head: i64,
    acks_checked: usize,
}

impl Checker {
    pub async fn new(operator: &Caller) -> Self {
        let catalogue = operator.directory().get_catalogue(GetCatalogueRequest {}).await.expect("a catalogue");
        let default_roles = catalogue.into_inner().catalogue.expect("a catalogue").default_roles;
        let mut checker = Self { model: Model { default_roles, ..Model::default() }, head: 0, acks_checked: 0 };
        for event in checker.new_events(operator).await {
            checker.model.apply(&event);
        }
        checker
    }

    pub fn head(&self) -> i64 {
        self.head
    }

    /// Checks everything; how many events there are that no client has been answered.
    pub async fn check(&mut self, operator: &Caller, known: &mut Known, when: &str) -> usize {
        verify_chain(operator, when).await;
        let events = self.new_events(operator).await;
        let cut = self.replay(&events, known, when);
        self.check_listings(operator).await;
        self.check_tokens(operator, known, when).await;
        cut
    }

    async fn new_events(&mut self, operator: &Caller) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let page =
                operator.events().list_events(requests::list_events(self.head)).await.expect("the log").into_inner();
            for event in &page.events {
                let revision = event.revision.expect("a revision");
                assert_eq!((revision.epoch, revision.number), (1, self.head + 1), "gap-free");
                self.head += 1;
            }
            events.extend(page.events);
            if page.next_page_token.is_empty() {
                assert_eq!(page.head.expect("a head").number, self.head);
                return events;
            }
        }
    }

    /// Applies the round's events, and holds every answer of the round against the state at its revision.
    fn replay(&mut self, events: &[Event], known: &mut Known, when: &str) -> usize {
        let acks = &known.acks[self.acks_checked..];
        self.acks_checked = known.acks.len();
        let mut by_number: BTreeMap<i64, Vec<&Ack>> = BTreeMap::new();
        for ack in acks {
            assert!(ack.number <= self.head, "{when}: answered, and gone: {} > {}", ack.number, self.head);
            by_number.entry(ack.number).or_default().push(ack);
        }
        let first = events.first().and_then(|event| event.revision).map_or(self.head + 1, |first| first.number);
        // What changed nothing was answered with the head that it found, which may be that of an earlier round.
        by_number.range(..first).flat_map(|(_, acks)| acks).for_each(|ack| self.check_ack(ack));
        let mut batches: BTreeMap<&str, usize> = BTreeMap::new();
        for event in events {
            let number = event.revision.expect("a revision").number;
            self.model.apply(event);
            by_number.get(&number).into_iter().flatten().for_each(|ack| self.check_ack(ack));
            let named = event.changes.iter().find(|change| change.after.starts_with("batch "));
            if let Some(named) = named.filter(|_| event.kind_name.starts_with("team.")) {
                *batches.entry(&named.after).or_default() += 1;
            }
        }
        assert!(batches.values().all(|count| *count == 3), "{when}: a batch is half there: {batches:?}");
        let seen: BTreeSet<i64> = acks.iter().flat_map(numbers).collect();
        let of_clients = events.iter().filter(|event| event.kind() != EventKind::RotatedTokenPresented);
        let cut = of_clients.filter(|event| !seen.contains(&event.revision.expect("a revision").number)).count();
        let unknown = std::mem::take(&mut known.unknown);
        let most: usize = unknown.iter().map(|(_, events_max)| events_max).sum();
        assert!(cut <= most, "{when}: {cut} events that no call can have made; unanswered were {unknown:?}");
        cut
    }

    fn check_ack(&self, ack: &Ack) {
        for seen in &ack.seen {
            match seen {
                Seen::Key(key) => self.model.check_key(key),
                Seen::Team(team) => self.model.check_team(ack.account, team),
                Seen::Role(role) => self.model.check_role(ack.account, role),
                Seen::User(user) => self.model.check_user(ack.account, user),
                // The number of its keys is another call's business.
                Seen::Account(account) => {
                    assert_eq!(self.model.accounts[&account.account_id].number, number(&account.etag), "{account:?}")
                }
                Seen::Gone(kind, id) => {
                    let id = (ack.account.to_owned(), id.clone());
                    let objects = if *kind == "team" { &self.model.teams } else { &self.model.users };
                    assert!(!objects.contains_key(&id), "{kind} {id:?} was deleted at {}", ack.number);
                }
            }
        }
    }

    /// The API shows exactly what the log tells.
    async fn check_listings(&self, operator: &Caller) {
        let mut directory = operator.directory();
        let (mut keys, mut teams, mut roles, mut users) = (0, 0, 0, 0);
        for account in ["system", ACCOUNT, SIDE_ACCOUNT] {
            keys += self.check_keys(operator, account).await;
            if account == "system" {
                continue;
            }
            let account_id = || account.to_owned();
            let shown = directory.get_account(GetAccountRequest { account_id: account_id() }).await.expect("there");
            self.model.check_account(shown.get_ref().account.as_ref().expect("an account"));
            let request = ListTeamsRequest { account_id: account_id(), page_size: PAGE_SIZE_MAX, ..Default::default() };
            let shown = directory.list_teams(request).await.expect("teams").into_inner().teams;
            teams += shown.iter().inspect(|team| self.model.check_team(account, team)).count();
            let request = ListRolesRequest { account_id: account_id(), page_size: PAGE_SIZE_MAX, ..Default::default() };
            let shown = directory.list_roles(request).await.expect("roles").into_inner().roles;
            roles += shown.iter().inspect(|role| self.model.check_role(account, role)).count();
            let request = ListUsersRequest { account_id: account_id(), page_size: PAGE_SIZE_MAX, ..Default::default() };
            let shown = directory.list_users(request).await.expect("users").into_inner().users;
            users += shown.iter().inspect(|user| self.model.check_user(account, user)).count();
        }
        let seen = (self.model.keys.len(), self.model.teams.len(), self.model.roles.len(), self.model.users.len());
        assert_eq!((keys, teams, roles, users), seen, "keys, teams, roles, users: shown, and told by the log");
    }

    async fn check_keys(&self, operator: &Caller, account: &str) -> usize {
        let mut count = 0;
        let mut page_token = String::new();
        loop {
            let request = ListApiKeysRequest { page_token, ..requests::list_keys(account) };
            let page = operator.keys().list_api_keys(request).await.expect("keys").into_inner();
            count += page.api_keys.iter().inspect(|key| self.model.check_key(key)).count();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return count;
            }
        }
    }

    /// Every token that was handed out answers what the log says of its key.
    async fn check_tokens(&self, operator: &Caller, known: &Known, when: &str) {
        for chunk in known.minted.chunks(1_000) {
            let check = |token: &str| TokenCheck { token: token.to_owned(), requirement: None };
            let checks = chunk.iter().map(|minted| check(&minted.token)).collect();
            let results = operator
                .tokens()
                .verify_tokens(requests::verify_tokens(checks))
                .await
                .expect("answers")
                .into_inner()
                .results;
            for (minted, result) in chunk.iter().zip(results) {
                let key = &self.model.keys[&(ACCOUNT.to_owned(), minted.key_id.clone())];
                let expected = self.expected(key, minted.number);
                assert_eq!(result.outcome(), expected, "{when}: token of event {} of {key:?}", minted.number);
                assert_eq!(result.key_id, minted.key_id);
            }
        }
    }

    fn expected(&self, key: &crate::model::Key, minted_number: i64) -> VerificationOutcome {
        let age = key.tokens.iter().rev().position(|token| token.minted_number == minted_number);
        let age = age.expect("the log tells of every token that was handed out");
        // A grace of half an hour outlasts the test; rotating again ends it.
        let ended = age > 1 || (age == 1 && key.retiring_ended());
        match key.fields.values["state"].as_str() {
            "deleted" => VerificationOutcome::Deleted,
            _ if ended => VerificationOutcome::Rotated,
            "disabled" => VerificationOutcome::Disabled,
            "active" => VerificationOutcome::Valid,
            other => panic!("{other}"),
        }
    }
}

/// The events that an answer is about.
fn numbers(ack: &Ack) -> Vec<i64> {
    let etags = ack.seen.iter().map(|seen| match seen {
        Seen::Key(key) => number(&key.etag),
        Seen::Team(team) => number(&team.etag),
        Seen::Role(role) => number(&role.etag),
        Seen::User(user) => number(&user.etag),
        Seen::Account(account) => number(&account.etag),
        Seen::Gone(..) => ack.number,
    });
    etags.collect()
}

/// V6, from the first event to the head.
async fn verify_chain(operator: &Caller, when: &str) {
    let mut start_number = 0;
    loop {
        let request = VerifyEventChainRequest { account_id: String::new(), start_number };
        let report = operator.events().verify_event_chain(request).await.expect("a report").into_inner();
        assert!(report.valid, "{when}: event {}: {}", report.first_invalid_number, report.problem);
        start_number = report.next_start_number;
        if start_number == 0 {
            return;
        }
    }
}

/// Rows that no call shows: a key whose creation was cut must have its secret, and a rotation cut leave one current.
pub async fn secrets(owner_url: &str) {
    let mut connection = AsyncPgConnection::establish(owner_url).await.expect("the owner");
    let mut rows = async |sql: &str| diesel::sql_query(sql).execute(&mut connection).await.expect("a query");
    let without = "SELECT 1 FROM api_keys k WHERE (SELECT count(*) FROM api_key_secrets s \
                   WHERE s.key_id = k.key_id AND s.end_time IS NULL) <> 1";
    assert_eq!(rows(without).await, 0, "keys without exactly one current token");
    let retiring =
        "SELECT 1 FROM api_key_secrets WHERE end_time > clock_timestamp() GROUP BY key_id HAVING count(*) > 1";
    assert_eq!(rows(retiring).await, 0, "keys with more than two live tokens");
    let unread = "SELECT 1 FROM events e, log_head h WHERE e.number > h.number";
    assert_eq!(rows(unread).await, 0, "events beyond the head");
}
