//! What a client's statements are understood by when they are prepared.
//!
//! **Invariant:** two sessions of one climate are of one mind about the constants in a text and its names, as far as they
//! have said by which settings they want them read.
//!
//! It does not know what a function has set in the transaction that is open, nor what servers are started with: no
//! server is shared by sessions that differ in that.

use super::super::ledger::Values;
use super::Mind;
use crate::journal::Settings;
use crate::pool::Mirror;
use crate::prepared::{Climate, Prepared, Registry};
use crate::sql::{CLIMATE, Phase, Reading};
use std::sync::Arc;
use wire::backend::Fields;

/// PostgreSQL's function that finds that what a statement answers has changed.
const REVALIDATE: &[u8] = b"RevalidateCachedQuery";

/// See the module.
#[derive(Debug, Default)]
pub(in crate::session) struct Weather {
    /// Of the settings that the session has made.
    settled: Option<(Arc<Settings>, Climate)>,
    /// What was changed since all was answered outside of a transaction.
    under_way: Climate,
}

impl Weather {
    /// A statement is on its way. `text`: with what stands for its parameters' types, if it has such.
    pub(super) fn changes(
        &mut self,
        registry: &Registry,
        reading: &Reading,
        text: &[u8],
        values: Option<&Values>,
    ) {
        let stays = |phase| reading.acts.leads_to(phase) == phase;
        if reading.changes_climate {
            let change = (text, values.map(|values| &values.all));
            self.under_way = registry.climate(self.under_way, change);
        } else if self.under_way != Climate::default()
            && !(stays(Phase::Inside) && stays(Phase::Failed))
        {
            // Some of it is taken back, and who knows what.
            self.under_way = registry.own_climate();
        }
    }

    /// Something is on its way that nobody could read.
    pub(super) fn is_unread(&mut self, registry: &Registry) {
        self.under_way = registry.own_climate();
    }

    /// All is answered, outside of a transaction: what has changed is among the settings now, or is gone.
    pub(in crate::session) fn settle(&mut self) {
        self.under_way = Climate::default();
    }
}

impl Mind {
    /// In which a statement is prepared now.
    pub(super) fn climate(&mut self) -> Climate {
        let settled = self.settled();
        match self.weather.under_way {
            same if same == Climate::default() => settled,
            under_way => self.registry.climate(settled, under_way),
        }
    }

    fn settled(&mut self) -> Climate {
        let settings = self.journal.settings();
        if settings.is_empty() {
            return Climate::default();
        }
        if let Some((known, climate)) = &self.weather.settled
            && Arc::ptr_eq(known, settings)
        {
            return *climate;
        }
        let all = CLIMATE.into_iter();
        let matter = all.filter_map(|name| Some((name, settings.get(name)?)));
        let matter: Vec<_> = matter.collect();
        let climate = match matter.is_empty() {
            true => Climate::default(),
            false => self.registry.climate(Climate::default(), matter),
        };
        self.weather.settled = Some((Arc::clone(settings), climate));
        climate
    }

    /// What the server is to have for a statement: one that it lacks, and that was prepared in another climate, is
    /// prepared in this one, and may not be taken for that by those who have stayed there.
    pub(super) fn fitting(&mut self, prepared: Arc<Prepared>, mirror: &Mirror) -> Arc<Prepared> {
        let climate = self.climate();
        if prepared.climate == climate
            || prepared.reading.is_of_moment
            || mirror.known.contains_key(&prepared.id)
        {
            return prepared;
        }
        let standard = mirror.has_standard_strings();
        self.registry.in_climate(&prepared, standard, climate)
    }

    /// A request has failed. Where that is because a table has other columns now, PostgreSQL refuses the statement for as
    /// long as it is there: who prepares the text from now on is to get a new one, and who has the old one is to hear it.
    pub(in crate::session) fn retire(&self, why: Fields<'_>, mirror: &Mirror) {
        if why.find(b'R').map(std::ffi::CStr::to_bytes) != Some(REVALIDATE) {
            return;
        }
        for prepared in mirror.used_since(self.since) {
            self.registry.retire(prepared);
        }
    }
}
