//! V1 under load: verifications race mutations from several tasks; none sent after a withdrawal's
//! answer is VALID.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use latchkey::proto::{ApiKey, Requirement, VerificationOutcome as Outcome, VerifyTokenRequest};
use tokio::task::JoinSet;

use crate::support::{Caller, Server, World, calls::*, world::*};

/// A world whose database may be slow: a busy machine is no reason for a race to end as UNAVAILABLE.
async fn patient_world() -> World {
    World::on(Server::start_with(|flags| flags.with("database_timeout_ms", "30000")).await).await
}

/// How often the permission was withdrawn and given back: odd while it is withdrawn. Odd only after
/// the answer that withdrew it, even before it is given back.
type Withdrawn = Arc<AtomicUsize>;

/// Asks without pause until the stop flag is set: how many answers were VALID. A question sent when the
/// permission was withdrawn, and answered before it was given back, must not be.
fn asker(
    verifier: &Caller,
    token: &str,
    withdrawn: &Withdrawn,
    stop: &Arc<AtomicBool>,
) -> impl Future<Output = usize> + use<> {
    let (verifier, token) = (verifier.clone(), token.to_owned());
    let (withdrawn, stop) = (withdrawn.clone(), stop.clone());
    async move {
        let (mut tokens, mut valid) = (verifier.tokens(), 0);
        let needed: Requirement = requirement(ACME, "incidents.view", &[]);
        while !stop.load(Ordering::SeqCst) {
            let before = withdrawn.load(Ordering::SeqCst);
            let request =
                VerifyTokenRequest { token: token.clone(), requirement: Some(needed.clone()), min_revision: None };
            let answer = tokens.verify_token(request).await.expect("an answer").into_inner().verification.unwrap();
            let after = withdrawn.load(Ordering::SeqCst);
            if answer.outcome() == Outcome::Valid {
                assert!(before % 2 == 0 || after != before, "VALID after the withdrawal was answered");
                valid += 1;
            }
        }
        valid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_no_question_sent_after_a_withdrawal_was_answered_is_answered_valid() {
    let world = patient_world().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let (id, token) = (minted.api_key.unwrap().key_id, minted.token);
    let (withdrawn, stop) = (Withdrawn::default(), Arc::new(AtomicBool::new(false)));
    let mut askers = JoinSet::new();
    for _ in 0..4 {
        askers.spawn(asker(&world.verifier, &token, &withdrawn, &stop));
    }
    let edit = |names: &[&str]| ApiKey { key_id: id.clone(), ..key("k", names) };
    for round in 0..30 {
        match round % 3 {
            0 => drop(disable(&owner, ACME, &id).await.unwrap()),
            1 => drop(update(&owner, ACME, edit(&[]), &["account_permissions"]).await.unwrap()),
            _ => suspend(&world, ACME).await,
        }
        withdrawn.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        withdrawn.fetch_add(1, Ordering::SeqCst);
        match round % 3 {
            0 => drop(enable(&owner, ACME, &id).await.unwrap()),
            1 => drop(update(&owner, ACME, edit(&["incidents.view"]), &["account_permissions"]).await.unwrap()),
            _ => resume(&world, ACME).await,
        }
        // A grant's answer waits for this replica only so long, and four askers keep its threads busy.
        eventually("the permission is given back", || async {
            world.outcome(&token, "incidents.view", &[]).await == Outcome::Valid
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    let valid: usize = askers.join_all().await.into_iter().sum();
    assert!(valid > 30, "the askers did ask: {valid}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_revocations_of_many_keys_at_once_are_each_final() {
    let world = Arc::new(patient_world().await);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut keys = JoinSet::new();
    for i in 0..12 {
        let (world, asked) = (world.clone(), asked.clone());
        keys.spawn(async move {
            let owner = world.user("owner");
            let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
            let (id, token) = (minted.api_key.unwrap().key_id, minted.token);
            let (withdrawn, stop) = (Withdrawn::default(), Arc::new(AtomicBool::new(false)));
            let asking = tokio::spawn(asker(&world.verifier, &token, &withdrawn, &stop));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            match i % 3 {
                0 => drop(delete(&owner, ACME, &id).await.unwrap()),
                1 => drop(revoke(&world.server.caller(&token)).await.unwrap()),
                _ => drop(rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap()),
            }
            withdrawn.fetch_add(1, Ordering::SeqCst);
            for _ in 0..5 {
                assert_ne!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid);
            }
            stop.store(true, Ordering::SeqCst);
            asked.fetch_add(asking.await.expect("never VALID after it"), Ordering::SeqCst);
        });
    }
    keys.join_all().await;
    assert!(asked.load(Ordering::SeqCst) > 12, "the askers did ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_no_key_is_minted_by_authority_that_was_withdrawn_before() {
    let world = Arc::new(patient_world().await);
    let owner = world.user("owner");
    for round in 0..10 {
        let maker = create(&owner, ACME, &key("maker", &["api_keys.manage", "incidents.view"])).await.unwrap();
        let id = maker.api_key.unwrap().key_id;
        let mut makers = JoinSet::new();
        for _ in 0..4 {
            let bearer = world.server.caller(&maker.token);
            makers.spawn(async move {
                let mut made = Vec::new();
                while let Ok(minted) = create(&bearer, ACME, &key("made", &["incidents.view"])).await {
                    made.push(minted.propagation.unwrap().revision.unwrap().number);
                }
                made
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        let edit = ApiKey { key_id: id.clone(), ..key("maker", &["incidents.view"]) };
        let response = update(&owner, ACME, edit, &["account_permissions"]).await.unwrap();
        let withdrawn = response.propagation.unwrap().revision.unwrap().number;
        let made = makers.join_all().await.concat();
        // The log is the order in which things happened: none was made after.
        assert!(made.iter().all(|number| *number < withdrawn), "round {round}: {made:?}, withdrawn at {withdrawn}");
    }
}
