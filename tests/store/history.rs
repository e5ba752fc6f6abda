//! Accepting a history: a new epoch, in one transaction, on the one log.

use latchkey::{
    app::ports::{Append, EventFilter, Lane, Locks, Page, Store},
    domain::log::{
        event::{EventDraft, EventKind, Target, chain},
        revision::Revision,
    },
    verify::primary::Primary,
};

use crate::{database::fresh_database, fixtures::*};

fn accepted() -> Append {
    let draft = EventDraft {
        kind: EventKind::HistoryAccepted,
        account_id: None,
        actor: None,
        target: Target { kind: "history".into(), id: String::new() },
        changes: vec![],
        affected_key_ids: vec![],
        break_glass: false,
    };
    Append { draft, stamps: vec![] }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_starts_with_its_event_or_not_at_all() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    let before = Primary::head(&db.store, &sent()).await.unwrap();
    for commits in [false, true] {
        let mut tx = db.store.begin(Lane::Mutations, "test", false, &Locks::default()).await.unwrap();
        assert_eq!(tx.start_epoch().await.unwrap(), Revision { epoch: 1, number: 1 });
        assert_eq!(tx.append(vec![accepted()]).await.unwrap(), [Revision { epoch: 2, number: 2 }]);
        if commits { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    put_account(&db.store, "other", &[]).await;
    let head = Primary::head(&db.store, &sent()).await.unwrap();
    assert_eq!(head.revision, Revision { epoch: 2, number: 3 });
    let page = Page { limit: 9, after: None };
    let events = snapshot(&db.store).await.events(&EventFilter::default(), &page, 10_000).await.unwrap().items;
    let epochs: Vec<_> = events.iter().map(|event| event.event.as_ref().unwrap().revision.epoch).collect();
    assert_eq!(epochs, [1, 2, 2]);
    // One chain across the epochs.
    assert_eq!(events[1].hash, chain(&before.hash, &events[1].payload));
    assert_eq!(events[2].hash, head.hash);
    assert!(events.iter().all(|event| event.columns_match));
}
