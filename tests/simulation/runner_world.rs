//! Changes that concern more than one key, and faults.

use super::*;

impl Run<'_> {
    pub(super) async fn restore_team(&self, operator: &Caller, team: &str) -> Result<(), Status> {
        let request = requests::upsert_team(ACME, requests::team(team, team));
        operator.directory().upsert_team(request).await.map(drop)
    }

    pub(super) async fn suspend(&mut self, replica: usize, suspended: bool) {
        self.shared.model().account_active.propose(!suspended);
        let mut directory = self.operator_at(replica).directory();
        let came = if suspended {
            let request = requests::suspend_account(ACME);
            sort(limited(directory.suspend_account(in_time(request))).await, |done| done.get_ref().propagation).0
        } else {
            let request = requests::resume_account(ACME);
            sort(limited(directory.resume_account(in_time(request))).await, |done| done.get_ref().propagation).0
        };
        self.settle(&came, |model| &mut model.account_active);
    }

    pub(super) async fn retire(&mut self, replica: usize, retired: bool) {
        let mut directory = self.operator_at(replica).directory();
        let Ok(found) = limited(directory.get_catalogue(proto::GetCatalogueRequest {})).await else { return };
        let mut catalogue = found.into_inner().catalogue.expect("a catalogue");
        for permission in catalogue.permissions.iter_mut().filter(|permission| permission.name == RETIRED) {
            permission.retired = retired;
        }
        self.shared.model().retired.propose(retired);
        let request = requests::apply_catalogue(catalogue);
        let applied = limited(directory.apply_catalogue(in_time(request))).await;
        let came = sort(applied, |applied| applied.get_ref().propagation).0;
        self.settle(&came, |model| &mut model.retired);
    }

    /// A change of unknown outcome may still be made by a replica that was asleep: it may hold for ever.
    fn settle(&self, came: &Came, of: impl Fn(&mut crate::model::Model) -> &mut Versions<bool>) {
        let mut model = self.shared.model();
        match came {
            Came::Done(propagation) => {
                let revision = at(propagation.revision.as_ref().expect("a revision"));
                model.known = model.known.max(revision);
                of(&mut model).commit(revision);
                if propagation.complete {
                    model.complete(revision);
                }
            }
            Came::Refused => of(&mut model).withdraw(),
            Came::Unknown => of(&mut model).linger(),
        }
    }

    pub(super) async fn delete_team(&mut self, replica: usize, team: &str) {
        let affected: Vec<usize> = {
            let model = self.shared.model();
            let holds = |key: &Key| !key.murky && !key.deleted && key.authority.latest().teams.contains(team);
            (0..model.keys.len()).filter(|place| holds(&model.keys[*place])).collect()
        };
        for place in &affected {
            let mut after = self.shared.model().keys[*place].authority.latest().clone();
            after.teams.remove(team);
            self.propose(*place, after);
        }
        let request = requests::delete_team(ACME, team);
        let deleted = limited(self.operator_at(replica).directory().delete_team(in_time(request))).await;
        let came = sort(deleted, |deleted| deleted.get_ref().propagation).0;
        affected.iter().for_each(|place| self.settle_key(*place, &came));
        if matches!(came, Came::Unknown) {
            self.shared.model().loose_teams.insert(team.to_owned());
        }
    }

    pub(super) async fn revoke_caller(&mut self, replica: usize) {
        let operator = self.operator_at(replica);
        let key = world::key("passing", &["system.verify"]);
        let Ok(minted) = limited(world::create(&operator, "system", &key)).await else { return };
        let at_slot = |slot: usize| {
            let running = self.replicas[slot].as_ref().filter(|replica| !replica.stopped);
            running.map(|replica| Caller { channel: replica.channel.clone(), ..operator.clone() })
        };
        let callers: Vec<_> = (0..REPLICAS).filter_map(at_slot).collect();
        let callers: Vec<_> = callers.into_iter().map(|c| Caller { token: minted.token.clone(), ..c }).collect();
        for caller in &callers {
            _ = limited(caller.tokens().get_identity(proto::GetIdentityRequest {})).await;
        }
        let key_id = minted.api_key.expect("a key").key_id;
        let request = requests::delete_key("system", &key_id);
        let deleted = limited(operator.keys().delete_api_key(in_time(request))).await;
        let complete = deleted.is_ok_and(|deleted| deleted.into_inner().propagation.is_some_and(|p| p.complete));
        if !complete {
            return;
        }
        for caller in callers {
            let request = requests::verify_token(&minted.token, None);
            let verified = limited(async { caller.tokens().verify_token(request).await }).await.is_ok();
            let request = proto::GetIdentityRequest {};
            if verified || limited(async { caller.tokens().get_identity(request).await }).await.is_ok() {
                self.shared.model().violation("V1: a caller was served after its key was deleted everywhere".into());
            }
        }
    }

    pub async fn await_propagation(&mut self, replica: usize) -> bool {
        let request = proto::AwaitPropagationRequest { revision: None };
        let Ok(awaited) = limited(self.operator_at(replica).events().await_propagation(in_time(request))).await else {
            return false;
        };
        let propagation = awaited.into_inner().propagation.expect("a propagation");
        if propagation.complete {
            self.shared.model().complete(at(propagation.revision.as_ref().expect("a revision")));
        }
        propagation.complete
    }

    pub(super) async fn hurt(&mut self, fault: Fault) {
        *self.faults.entry(fault.kind()).or_default() += 1;
        match fault {
            Fault::KillReplica(slot) => {
                self.shared.place(slot, None);
                self.replicas[slot] = None;
            }
            Fault::LeaveReplica(slot) => {
                self.shared.place(slot, None);
                if let Some(replica) = self.replicas[slot].take() {
                    // It leaves while other things happen.
                    tokio::spawn(replica.leave());
                }
            }
            Fault::JoinReplica(slot) => {
                if self.replicas[slot].is_none() {
                    self.join(slot).await;
                }
            }
            Fault::KillPostgres => self.postgres.kill().await,
            Fault::RestartPostgres => self.postgres.restart().await,
            Fault::StopPostgres(ms) => self.postgres.stand_still(Duration::from_millis(ms.into())).await,
            Fault::StopReplica(slot) => {
                if let Some(replica) = &mut self.replicas[slot] {
                    replica.stop();
                }
            }
            Fault::ContinueReplica(slot) => {
                if let Some(replica) = &mut self.replicas[slot] {
                    replica.carry_on();
                }
            }
            _ => self.disturb(fault),
        }
    }

    /// What a proxy does.
    fn disturb(&self, fault: Fault) {
        let proxy = |slot: usize| self.replicas[slot].as_ref().map(|replica| &replica.proxy);
        match fault {
            Fault::CutListeners(slot) => _ = proxy(slot).map(|proxy| proxy.cut_listeners()),
            Fault::CutConnections(slot) => _ = proxy(slot).map(|proxy| proxy.cut()),
            Fault::Refuse(slot) => _ = proxy(slot).map(|proxy| proxy.refuse()),
            Fault::Delay(slot, ms) => _ = proxy(slot).map(|proxy| proxy.delay(Duration::from_millis(ms.into()))),
            Fault::HoldToDatabase(slot) => _ = proxy(slot).map(|proxy| proxy.hold(true, false)),
            Fault::HoldToReplica(slot) => _ = proxy(slot).map(|proxy| proxy.hold(false, true)),
            Fault::Heal(slot) => _ = proxy(slot).map(|proxy| proxy.heal()),
            _ => unreachable!("not the proxy's"),
        }
    }
}
