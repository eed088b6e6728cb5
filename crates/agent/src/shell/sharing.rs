//! The cluster's configuration of Postgres, before an instance starts with it.

use super::{Basis, Shell};
use postgres::Shared;
use store::layout::ConfigRecord;

/// What the value of `config` says to every Postgres; or why it can't be read.
pub(crate) fn shared(text: &str) -> Result<Shared, String> {
    let record: ConfigRecord = serde_json::from_str(text).map_err(|bad| bad.to_string())?;
    of(&record)
}

fn of(record: &ConfigRecord) -> Result<Shared, String> {
    let said = record.postgres().map_err(|bad| bad.to_string())?;
    Ok(Shared {
        parameters: said.parameters,
        pg_hba: said.pg_hba,
        pg_ident: said.pg_ident,
    })
}

impl Shell {
    /// Takes what the cluster says, or, where it is being founded, what this node will write. A start does not fail for
    /// it: it then has what was taken last.
    pub(super) async fn share(&self, basis: &Basis, founding: Option<&ConfigRecord>) {
        let said = match basis.snapshot.value(&self.keys.config()) {
            Some(text) => shared(text),
            // A store that is silent says nothing new.
            None => match founding {
                Some(config) => of(config),
                None => return,
            },
        };
        let taken = match said {
            Ok(shared) => self
                .instance
                .share(&shared)
                .await
                .map_err(|error| crate::agent::chain(&error)),
            Err(why) => Err(why),
        };
        if let Err(why) = taken {
            tracing::warn!(why, "the cluster's configuration of Postgres is not taken");
        }
    }
}
