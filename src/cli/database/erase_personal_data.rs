//! `latchkey erase-personal-data`.

use super::offline;
use crate::{
    app::ports::PersonalDataOf,
    cli::{
        environment::load,
        failure::Failure,
        process::{print_line, with_telemetry},
    },
    domain::{
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::event::Target,
    },
    settings::Flags,
};

#[derive(clap::Args)]
#[command(
    after_help = "Erases what people typed: names and display names in past events, and the names, comments and metadata of\n\
                  deleted keys. Name one object, or only the account to erase everything in it. The chain of events still\n\
                  verifies, because it covers salted commitments to the text and not the text itself; the erasure is recorded\n\
                  as an event. Live objects keep their names: edit or delete them first. Ids are not erased, nor is text in\n\
                  backups or in events written by releases without commitments. The command can be repeated."
)]
pub(crate) struct ErasePersonalDataArgs {
    /// The account that the text belongs to.
    #[arg(long, value_name = "ID")]
    account_id: String,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct ObjectArgs {
    /// Erase only the text of this key.
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// Erase only the text of this user.
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// Erase only the text of this team.
    #[arg(long, value_name = "ID")]
    team_id: Option<String>,
    /// Erase only the text of this role.
    #[arg(long, value_name = "ID")]
    role_id: Option<String>,
}

pub(crate) async fn run(args: ErasePersonalDataArgs) -> Result<(), Failure> {
    let of = args.object.within(AccountId::parse("--account-id", &args.account_id)?)?;
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let erased = offline::open(&settings).await?.erase_personal_data(of).await?;
        let (events, rows) = (erased.events, erased.rows);
        Ok(print_line(format_args!("erased the text of {events} events and of {rows} deleted objects"))?)
    })
    .await
}

// === impl ObjectArgs ===

impl ObjectArgs {
    fn within(&self, account_id: AccountId) -> Result<PersonalDataOf, Failure> {
        let mut key_id = None;
        let named = if let Some(id) = &self.key_id {
            let key = KeyId::parse("--key-id", id)?;
            key_id = Some(key);
            Some(("api_key", key.to_string()))
        } else if let Some(id) = &self.user_id {
            Some(("user", UserId::parse("--user-id", id)?.to_string()))
        } else if let Some(id) = &self.team_id {
            Some(("team", TeamId::parse("--team-id", id)?.to_string()))
        } else if let Some(id) = &self.role_id {
            Some(("role", RoleId::parse("--role-id", id)?.to_string()))
        } else {
            None
        };
        let target = named.map(|(kind, id)| Target { kind: kind.to_owned(), id });
        Ok(PersonalDataOf { account_id, target, key_id })
    }
}
