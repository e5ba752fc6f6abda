//! Changes of keys.

use super::*;

impl Run<'_> {
    /// A key that may still be deleted, whatever is known of it.
    pub(super) fn pick_any(&self, key: usize) -> Option<usize> {
        let model = self.shared.model();
        let count = model.keys.len();
        (0..count).map(|more| (key + more) % count).find(|place| !model.keys[*place].deleted)
    }

    /// A key whose state is known, if there is one.
    pub(super) fn pick(&self, key: usize) -> Option<(usize, String, Authority)> {
        let model = self.shared.model();
        let count = model.keys.len();
        let mut places = (0..count).map(|more| (key + more) % count);
        let place = places.find(|place| !model.keys[*place].murky && !model.keys[*place].deleted)?;
        Some((place, model.keys[place].id.clone(), model.keys[place].authority.latest().clone()))
    }

    pub(super) fn settle_key(&self, place: usize, came: &Came) {
        let mut model = self.shared.model();
        match came {
            Came::Done(propagation) => {
                let revision = at(propagation.revision.as_ref().expect("a revision"));
                model.known = model.known.max(revision);
                model.keys[place].authority.commit(revision);
                if propagation.complete {
                    model.complete(revision);
                }
            }
            Came::Refused => model.keys[place].authority.withdraw(),
            Came::Unknown => model.keys[place].murky = true,
        }
    }

    pub(super) fn propose(&self, place: usize, authority: Authority) {
        self.shared.model().keys[place].authority.propose(authority);
    }

    pub(super) async fn mint(&mut self, replica: usize, kind: usize) {
        let names = permissions(kind);
        let teams = if kind >= 2 { &TEAMS[..kind.min(3)] } else { &[] };
        let mut key = match teams {
            [] => world::key("k", &names),
            teams => world::team_key("k", &names, teams, &[TEAM_PERMISSION]),
        };
        if kind == 5 {
            key.expiry = Some(ProtoExpiry::Ttl(calls::seconds(4)));
        }
        let minted = limited(world::create(&self.operator_at(replica), ACME, &key)).await;
        let (came, minted) = sort(minted, |minted| minted.propagation);
        if let Some((minted, api_key)) = minted.map(|m| (m.token, m.api_key.expect("a key"))) {
            let expire_micros = match &api_key.expiry {
                Some(ProtoExpiry::ExpireTime(time)) => Some(calls::micros(time)),
                _ => None,
            };
            let authority = Authority {
                active: true,
                permissions: names.iter().map(|name| (*name).to_owned()).collect(),
                teams: teams.iter().map(|team| (*team).to_owned()).collect(),
                tokens: [(0, None)].into(),
            };
            self.shared.model().keys.push(Key {
                id: api_key.key_id,
                account_id: ACME.into(),
                tokens: vec![minted],
                expire_micros,
                authority: Versions::new(authority),
                murky: false,
                deleted: false,
            });
        } else if matches!(came, Came::Unknown) {
            self.lost_mints += 1;
        }
    }

    pub(super) async fn edit(&mut self, replica: usize, key: usize, kind: usize) {
        let Some((place, key_id, before)) = self.pick(key) else { return self.mint(replica, kind).await };
        let account_permissions = world::strings(&permissions(kind));
        let permissions: BTreeSet<_> = account_permissions.iter().cloned().collect();
        self.propose(place, Authority { permissions, ..before });
        let api_key = ApiKey { key_id, account_permissions, ..Default::default() };
        let operator = self.operator_at(replica);
        let edited = limited(calls::update(&operator, ACME, api_key, &["account_permissions"])).await;
        self.settle_key(place, &sort(edited, |edited| edited.propagation).0);
    }

    pub(super) async fn flap(&mut self, replica: usize, key: usize) {
        for _ in 0..2 {
            self.edit(replica, key, WIDE).await;
            tokio::time::sleep(FLAP_PAUSE).await;
            self.edit(replica, key, NARROW).await;
        }
    }

    pub(super) async fn set_active(&mut self, replica: usize, key: usize, active: bool) {
        let Some((place, key_id, before)) = self.pick(key) else { return self.mint(replica, key).await };
        self.propose(place, Authority { active, ..before });
        let mut keys = self.operator_at(replica).keys();
        let came = if active {
            let request = requests::enable_key(ACME, &key_id);
            sort(limited(keys.enable_api_key(in_time(request))).await, |enabled| enabled.get_ref().propagation).0
        } else {
            let request = requests::disable_key(ACME, &key_id);
            sort(limited(keys.disable_api_key(in_time(request))).await, |disabled| disabled.get_ref().propagation).0
        };
        self.settle_key(place, &came);
    }

    pub(super) async fn rotate(&mut self, replica: usize, key: usize, grace_s: u8) {
        let Some((place, key_id, before)) = self.pick(key) else { return self.mint(replica, key).await };
        let (fresh, current) = {
            let model = self.shared.model();
            let fresh = model.keys[place].tokens.len();
            (fresh, before.tokens.iter().filter(|(_, end)| end.is_none()).map(|(token, _)| *token).next_back())
        };
        let retiring = current.filter(|_| grace_s > 0);
        let tokens = retiring.into_iter().chain([fresh]).map(|token| (token, None)).collect();
        self.propose(place, Authority { tokens, ..before });
        let request = requests::rotate_key(ACME, &key_id, Some(calls::seconds(grace_s.into())));
        let rotated = limited(self.operator_at(replica).keys().rotate_api_key(in_time(request))).await;
        let (came, rotated) = sort(rotated, |rotated| rotated.get_ref().propagation);
        if let Some(rotated) = rotated.map(tonic::Response::into_inner) {
            let end = rotated.api_key.and_then(|key| key.retiring_token_end_time);
            let mut model = self.shared.model();
            model.keys[place].tokens.push(rotated.token);
            if let (Some(token), Some(end)) = (retiring, end) {
                model.keys[place].authority.amend(|now| _ = now.tokens.insert(token, Some(calls::micros(&end))));
            }
        }
        self.settle_key(place, &came);
    }

    pub(super) async fn delete_picked(&mut self, replica: usize, key: usize) {
        if let Some(place) = self.pick_any(key) {
            self.delete(replica, place).await;
        }
    }

    /// True if it is known to be deleted, everywhere.
    pub async fn delete(&mut self, replica: usize, place: usize) -> bool {
        self.propose(place, Authority::default());
        let key_id = self.shared.model().keys[place].id.clone();
        let request = requests::delete_key(ACME, &key_id);
        let deleted = limited(self.operator_at(replica).keys().delete_api_key(in_time(request))).await;
        let (came, _) = sort(deleted, |deleted| deleted.get_ref().propagation);
        self.settle_key(place, &came);
        let done = matches!(came, Came::Done(_));
        if done {
            let mut model = self.shared.model();
            let key = &mut model.keys[place];
            // Nothing that is still under way can change it any more.
            (key.deleted, key.murky) = (true, false);
        }
        matches!(came, Came::Done(propagation) if propagation.complete)
    }

    pub(super) async fn revoke(&mut self, replica: usize, key: usize) {
        let Some((place, _, before)) = self.pick(key) else { return };
        let current = before.tokens.iter().filter(|(_, end)| end.is_none()).map(|(token, _)| *token).next_back();
        let Some(current) = current else { return };
        let token = self.shared.model().keys[place].tokens[current].clone();
        self.propose(place, Authority::default());
        let bearer = Caller { token, ..self.operator_at(replica) };
        let revoked = limited(bearer.tokens().revoke_token(in_time(RevokeTokenRequest::default()))).await;
        let (came, _) = sort(revoked, |revoked| revoked.get_ref().propagation);
        // A key that is disabled or expired may revoke itself too; if not, it is as it was.
        self.settle_key(place, &came);
        self.shared.model().keys[place].deleted |= matches!(came, Came::Done(_));
    }
}
