//! What people typed stands apart from what is hashed, and can be erased (V6).

use latchkey::{
    app::ports::{Erased, PersonalDataOf},
    domain::{
        id::{AccountId, KeyId},
        log::event::Target,
    },
    proto::{EventKind, GetApiKeyRequest, VerifyEventChainRequest},
};

use crate::{
    calls::*,
    support::{World, sql, world::*},
};

async fn is_valid(world: &World) -> bool {
    let answer = world.server.operator.events().verify_event_chain(VerifyEventChainRequest::default()).await;
    answer.expect("walks").into_inner().valid
}

async fn payloads(world: &World) -> String {
    sql::lines(&world.server.database, "SELECT encode(payload, 'escape') AS line FROM events").await.join("\n")
}

fn of(target: Option<(&str, &str)>) -> PersonalDataOf {
    let key_id = target.filter(|(kind, _)| *kind == "api_key").map(|(_, id)| KeyId::parse("id", id).expect("an id"));
    let target = target.map(|(kind, id)| Target { kind: kind.into(), id: id.into() });
    PersonalDataOf { account_id: AccountId::parse("id", ACME).expect("an id"), target, key_id }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_what_people_typed_is_not_hashed_and_its_erasure_is_an_event_and_leaves_the_chain_whole() {
    let world = World::start().await;
    let (owner, before) = (world.user("owner"), head(&world).await);
    let mut draft = key("Jane Roe's laptop", &[]);
    draft.comment = "call Jane".into();
    let made = mint(&owner, &draft).await.expect("a key");
    let kept = mint(&owner, &key("John Doe's laptop", &[])).await.expect("a key");
    delete(&owner, made.id()).await.expect("deleted");
    let named = |events: &[latchkey::proto::Event], name: &str| format!("{events:?}").contains(name);
    let events = events_after(&world, before).await;
    assert!(named(&events, "Jane Roe's laptop") && named(&events, "John Doe's laptop"));
    assert!(events.iter().flat_map(|event| &event.changes).all(|change| !change.erased));
    assert!(!payloads(&world).await.contains("laptop"));
    assert!(is_valid(&world).await);

    let app = world.server.running.app();
    let erased = app.erase_personal_data(of(Some(("api_key", made.id())))).await.expect("erased");
    assert!(erased.events >= 1 && erased.rows == 1, "{erased:?}");
    let events = events_after(&world, before).await;
    assert!(!named(&events, "Jane") && named(&events, "John Doe's laptop"));
    let change = events[0].changes.iter().find(|change| change.field == "name").expect("the name's change");
    assert!(change.erased && change.before.is_empty() && change.after.is_empty());
    let last = events.last().expect("the erasure");
    assert_eq!(last.kind(), EventKind::PersonalDataErased);
    assert_eq!(last.target.as_ref().map(|target| (&target.r#type[..], &target.id[..])), Some(("api_key", made.id())));
    assert!(is_valid(&world).await);
    let rows = sql::dump(&world.server.database).await.join("\n");
    assert!(!rows.contains("Jane"), "of what is deleted nothing is left");
    let request = GetApiKeyRequest { account_id: ACME.into(), key_id: kept.id().into() };
    let live = owner.keys().get_api_key(request).await.expect("found").into_inner();
    assert_eq!(live.api_key.expect("a key").name, "John Doe's laptop", "what is live keeps its name");

    // Repeated, it changes nothing; of the whole account, nothing of the past is left.
    let now = head(&world).await;
    let again = app.erase_personal_data(of(Some(("api_key", made.id())))).await.expect("nothing to do");
    assert_eq!((again, head(&world).await), (Erased::default(), now));
    app.erase_personal_data(of(None)).await.expect("erased");
    assert!(!named(&events_after(&world, before).await, "laptop"));
    assert!(is_valid(&world).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_a_text_that_was_changed_where_it_stands_breaks_the_chain() {
    let world = World::start().await;
    mint(&world.user("owner"), &key("Jane", &[])).await.expect("a key");
    assert!(is_valid(&world).await);
    let change = "UPDATE event_details SET details = replace(details, 'Jane', 'Joan')";
    world.server.database.execute_as_owner(change).await;
    assert!(!is_valid(&world).await);
}
