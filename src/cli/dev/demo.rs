//! Creates the demo account, through the same use-cases as any caller, with this run's operator key.

use std::collections::BTreeSet;

use crate::{
    app::{App, AppError, Session, types::Guard},
    cli::{database::catalogue_file, failure::Failure},
    domain::{
        Error as RuleError, ObjectKind,
        directory::{Team, User, UserState},
        id::{AccountId, RoleId, TeamId, UserId},
        log::revision::Revision,
        token::PlainToken,
    },
};

/// The demo account's id.
pub(super) const ACCOUNT: &str = "demo";

const TEAMS: [(&str, &str); 3] = [("team-a", "Platform"), ("team-b", "Payments"), ("team-c", "Support")];
/// Id, name, base role, team roles (team, role).
type DemoUser = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const USERS: [DemoUser; 4] = [
    ("olivia", "Olivia Owner", "owner", &[]),
    ("adam", "Adam Admin", "admin", &[]),
    ("stan", "Stan Standard", "standard", &[("team-a", "manager")]),
    ("mia", "Mia Member", "standard", &[("team-a", "member"), ("team-b", "member")]),
];
const NEW: Revision = Revision { epoch: 0, number: 0 };

/// Applies the example catalogue and creates the demo account, each only if it does not exist: a second run keeps what
/// was changed since.
pub(super) async fn seed(app: &App, token: &PlainToken) -> Result<(), Failure> {
    let session = app.authenticate(token.reveal().as_bytes(), None).await?;
    if app.get_catalogue(&session).await?.catalogue.permissions().is_empty() {
        let spec = catalogue_file::parse(catalogue_file::EXAMPLE)?;
        app.apply_catalogue(&session, spec, Guard::default()).await?;
    }
    let account = AccountId::parse("account_id", ACCOUNT)?;
    match app.get_account(&session, &account).await {
        Err(AppError::Rule(RuleError::NotFound(ObjectKind::Account))) => make_account(app, &session, &account).await,
        found => Ok(found.map(|_| ())?),
    }
}

async fn make_account(app: &App, session: &Session, account: &AccountId) -> Result<(), Failure> {
    match app.upsert_account(session, account, "Demo".to_owned(), Guard::default()).await {
        // It was deleted, for good: then there is none.
        Err(AppError::Rule(RuleError::IdNotReusable)) => return Ok(()),
        made => made?,
    };
    let team = |(id, name): (&str, &str)| -> Result<_, RuleError> {
        Ok((Team { team_id: TeamId::parse("team_id", id)?, display_name: name.to_owned(), revision: NEW }, None))
    };
    let teams = TEAMS.into_iter().map(team).collect::<Result<_, _>>()?;
    app.upsert_teams(session, account, teams, false).await?;
    let users = USERS.into_iter().map(user).collect::<Result<_, _>>()?;
    app.upsert_users(session, account, users, false, "users").await?;
    Ok(())
}

fn user<E>((id, name, base_role, team_roles): DemoUser) -> Result<(User, Option<E>), RuleError> {
    let team_role = |(team, role): &(&str, &str)| -> Result<_, RuleError> {
        Ok((TeamId::parse("team_id", team)?, RoleId::parse("role_id", role)?))
    };
    let user = User {
        user_id: UserId::parse("user_id", id)?,
        display_name: name.to_owned(),
        state: UserState::Active,
        base_role_id: RoleId::parse("role_id", base_role)?,
        custom_role_ids: BTreeSet::new(),
        team_roles: team_roles.iter().map(team_role).collect::<Result<_, _>>()?,
        revision: NEW,
    };
    Ok((user, None))
}
