//! What is to be done to a controller, and the calls that do it.

use serde::Serialize;
use speediso_model::hardware_raid::{VolumeLevel, WriteCache};
use speediso_model::units::Bytes;

use crate::tool::{Adaptor, Command, Waits};
use crate::view::{Drive, Foreign, View, Volume};

/// Worked out by [`crate::resolve`]. Empty if everything is as wished.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Goal {
    pub delete: Vec<Volume>,
    pub clear_foreign: Vec<Foreign>,
    pub discard_cache: bool,
    pub make_good: Vec<Drive>,
    pub create: Vec<NewVolume>,
    /// Wished for and there: name in the wish, id of the volume.
    pub already: Vec<(String, String)>,
    /// Volumes that nobody wished for and that stay.
    pub kept: Vec<Volume>,
    /// The name in the wish of the volume to boot from, if the controller boots from another now.
    pub boot: Option<String>,
    /// Why it is these drives.
    pub reasons: Vec<String>,
    /// Volumes keep the names they are given.
    pub names: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NewVolume {
    pub name: String,
    pub level: VolumeLevel,
    pub drives: Vec<Drive>,
    pub spares: Vec<Drive>,
    /// None: all there is.
    pub size: Option<Bytes>,
    /// What it will have, by what its drives give.
    pub expected: Bytes,
    pub cache: Option<WriteCache>,
    pub strip_kib: Option<u32>,
}

/// One effect: in words for the plan, and the call that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub what: String,
    pub command: Command,
    /// Its loss cannot be undone.
    pub destroys: bool,
}

impl Goal {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.delete.is_empty()
            && self.clear_foreign.is_empty()
            && !self.discard_cache
            && self.make_good.is_empty()
            && self.create.is_empty()
            && self.boot.is_none()
    }

    /// Whatever takes something away, in the order in which it must be done: foreign configurations and kept cache
    /// keep a controller from making volumes, and cache may belong to a foreign configuration, so that goes last.
    ///
    /// # Errors
    /// If one of them is not asked of this tool by this version. Then none is done.
    pub fn teardown(&self, adaptor: &dyn Adaptor, view: &View) -> Result<Vec<Step>, Waits> {
        let mut steps = Vec::new();
        let mut step = |what: String, command: Command, destroys: bool| steps.push(Step { what, command, destroys });
        for volume in &self.delete {
            let what = format!("delete {volume} on drives {}", view.named(&volume.members));
            step(what, adaptor.delete(view, volume)?, true);
        }
        if !self.clear_foreign.is_empty() {
            let all: Vec<&str> = self.clear_foreign.iter().map(|f| f.what.as_str()).collect();
            step(format!("clear foreign configurations: {}", all.join("; ")), adaptor.clear_foreign(view)?, true);
        }
        if self.discard_cache {
            let what = "discard what the cache keeps for volumes that are gone".to_owned();
            step(what, adaptor.discard_cache(view)?, true);
        }
        for drive in &self.make_good {
            let what = format!("take drive {drive}, which is handed through to the system, for volumes");
            step(what, adaptor.make_good(view, drive)?, true);
        }
        Ok(steps)
    }

    /// Whatever makes something, in the order of the wish.
    ///
    /// # Errors
    /// If one of them is not asked of this tool by this version. Then none is done.
    pub fn creation(&self, adaptor: &dyn Adaptor, view: &View) -> Result<Vec<Step>, Waits> {
        self.create
            .iter()
            .map(|volume| Ok(Step { what: volume.in_words(), command: adaptor.create(view, volume)?, destroys: true }))
            .collect()
    }

    /// The call that makes the controller boot from the volume wished for, which has this number.
    ///
    /// # Errors
    /// If it is not asked of this tool by this version.
    pub fn booting(&self, adaptor: &dyn Adaptor, view: &View, id: &str) -> Result<Option<Step>, Waits> {
        let Some(name) = &self.boot else { return Ok(None) };
        let what = format!("make the controller boot from {name:?}");
        Ok(Some(Step { what, command: adaptor.make_boot(view, id)?, destroys: false }))
    }
}

impl NewVolume {
    #[must_use]
    pub fn in_words(&self) -> String {
        let drives: Vec<String> = self.drives.iter().map(ToString::to_string).collect();
        let mut text =
            format!("make {} {:?} of {} from drives {}", self.level, self.name, self.expected, drives.join(", "));
        if !self.spares.is_empty() {
            let spares: Vec<String> = self.spares.iter().map(ToString::to_string).collect();
            text.push_str(&format!(", with spares {}", spares.join(", ")));
        }
        match self.cache {
            Some(WriteCache::WriteBack) => text.push_str(", write back"),
            Some(WriteCache::WriteThrough) => text.push_str(", write through"),
            None => {}
        }
        if let Some(strip) = self.strip_kib {
            text.push_str(&format!(", strips of {strip} KiB"));
        }
        text
    }

    /// Slots of its members, for comparing.
    pub(crate) fn slots(&self) -> Vec<String> {
        self.drives.iter().map(|d| d.slot.clone()).collect()
    }
}
