//! Profiles: the ready-made lists of tasks that `SPEEDISO=` and `speediso apply` name.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::burn_in::{BurnInTask, ScenarioChoice};
use crate::fault::{Fault, FaultCode};
use crate::hints::RootDeviceHints;
use crate::image::ImageSource;
use crate::task::{
    BootEntryTask, BootPosition, ConfigDriveContent, ConfigDriveTask, Grow, InventoryTask, PowerAction, PowerTask,
    ReadBack, RecordedDisk, Task, WipeLevel, WipeMethod, WipePass, WipeTargets, WipeTask, WipeVerify, WriteImageTask,
};
use crate::units::{Bytes, MIB};

/// The profiles this version carries out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Look, and store what was seen.
    Inventory,
    /// Wipe one disk, write an image, tell it who it is, make the firmware boot it, reboot.
    Lininstall,
    /// Wipe the disks named, or all.
    Wipe,
    /// Wipe all disks for good, and say `unknown` if one that was recorded here is gone.
    Decommission,
    /// Stress the machine by a scenario, and judge what is measured.
    BurnIn,
    /// No task: the live system, reachable by ssh.
    Shell,
}

impl Profile {
    pub const ALL: [Self; 6] =
        [Self::Inventory, Self::Lininstall, Self::Wipe, Self::Decommission, Self::BurnIn, Self::Shell];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Lininstall => "lininstall",
            Self::Wipe => "wipe",
            Self::Decommission => "decommission",
            Self::BurnIn => "burnin",
            Self::Shell => "shell",
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The tasks of this profile, each of them valid.
    ///
    /// # Errors
    /// `task-invalid` when the parameters are not those of the profile.
    pub fn expand(self, parameters: Value) -> Result<Vec<Task>, Fault> {
        let tasks = match self {
            Self::Inventory => {
                vec![Task::Inventory(self.read::<InventoryTask>(parameters)?)]
            }
            Self::Shell => {
                let NoParameters {} = self.read(parameters)?;
                Vec::new()
            }
            Self::Wipe => self.read::<WipeParameters>(parameters)?.expand(),
            Self::Decommission => self.read::<DecommissionParameters>(parameters)?.expand(),
            Self::Lininstall => self.read::<LininstallParameters>(parameters)?.expand(),
            Self::BurnIn => self.read::<BurnInParameters>(parameters)?.expand()?,
        };
        tasks.iter().try_for_each(Task::validate)?;
        Ok(tasks)
    }

    fn read<T: DeserializeOwned>(self, parameters: Value) -> Result<T, Fault> {
        let parameters = if parameters.is_null() { Value::Object(serde_json::Map::new()) } else { parameters };
        serde_json::from_value(parameters)
            .map_err(|e| Fault::new(FaultCode::TaskInvalid, format!("parameters of profile {}: {e}", self.name())))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WipeParameters {
    pub devices: WipeTargets,
    #[serde(default = "clear")]
    pub level: WipeLevel,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passes_before: Vec<WipePass>,
    #[serde(default)]
    pub verify: WipeVerify,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<WipeMethod>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<WipeLevel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_areas: Option<bool>,
    /// Afterwards; the live system stays up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<PowerAction>,
}

fn clear() -> WipeLevel {
    WipeLevel::Clear
}

impl WipeParameters {
    fn expand(self) -> Vec<Task> {
        let wipe = Task::Wipe(WipeTask {
            passes_before: self.passes_before,
            verify: self.verify,
            methods: self.methods,
            allow: self.allow,
            hidden_areas: self.hidden_areas,
            ..WipeTask::new(self.devices, self.level)
        });
        std::iter::once(wipe).chain(self.then.map(|action| Task::Power(PowerTask { action }))).collect()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecommissionParameters {
    #[serde(default = "purge")]
    pub level: WipeLevel,
    #[serde(default)]
    pub verify: WipeVerify,
    /// What may be reached where a disk has no method for `level`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<WipeLevel>,
    /// The disks recorded in this machine; the controller fills it from its inventory where it is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<RecordedDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<PowerAction>,
}

fn purge() -> WipeLevel {
    WipeLevel::Purge
}

impl DecommissionParameters {
    fn expand(self) -> Vec<Task> {
        let wipe = Task::Wipe(WipeTask {
            verify: self.verify,
            allow: self.allow,
            hidden_areas: Some(true),
            expect: self.expect,
            ..WipeTask::new(WipeTargets::AllDisks, self.level)
        });
        std::iter::once(wipe).chain(self.then.map(|action| Task::Power(PowerTask { action }))).collect()
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurnInParameters {
    /// A shipped one by its name, or a whole one.
    #[serde(default = "quick")]
    pub scenario: ScenarioChoice,
    /// Restarts afterwards, each with a look at the hardware: it must come back, and be what it was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reboots: u16,
    /// Afterwards; the live system stays up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<PowerAction>,
}

fn quick() -> ScenarioChoice {
    ScenarioChoice::Named("quick".into())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

impl BurnInParameters {
    /// More would make an order that nobody reads, and an order has at most 256 tasks.
    pub const MOST_REBOOTS: u16 = 120;

    fn expand(self) -> Result<Vec<Task>, Fault> {
        if self.reboots > Self::MOST_REBOOTS {
            let message = format!("reboots: more than {}", Self::MOST_REBOOTS);
            return Err(Fault::new(FaultCode::TaskInvalid, message));
        }
        let mut tasks = vec![Task::BurnIn(BurnInTask { scenario: self.scenario })];
        for _ in 0..self.reboots {
            tasks.push(Task::Power(PowerTask { action: PowerAction::Reboot }));
            // Without a look after the last one nobody would know whether it came back.
            tasks.push(Task::Inventory(InventoryTask::default()));
        }
        tasks.extend(self.then.map(|action| Task::Power(PowerTask { action })));
        Ok(tasks)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LininstallParameters {
    /// The one disk that is wiped and written.
    pub device: RootDeviceHints,
    pub image: ImageSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_drive: Option<ConfigDriveContent>,
    /// A ready config drive instead of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_drive_image: Option<ImageSource>,
    /// `none` writes the image over what is there.
    #[serde(default)]
    pub wipe: InstallWipe,
    #[serde(default)]
    pub verify: WipeVerify,
    #[serde(default)]
    pub read_back: ReadBack,
    /// A config drive's room is left at the end.
    #[serde(default, skip_serializing_if = "Grow::is_no")]
    pub grow: Grow,
    /// As in `write_image`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share: bool,
    #[serde(default = "default_label")]
    pub boot_label: String,
    #[serde(default)]
    pub boot_position: BootPosition,
    #[serde(default = "reboot")]
    pub then: PowerAction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstallWipe {
    None,
    #[default]
    Clear,
    Purge,
}

fn default_label() -> String {
    "linux".into()
}

fn reboot() -> PowerAction {
    PowerAction::Reboot
}

/// The largest config drive, between two ends that may not lie on a MiB.
const CONFIG_DRIVE_ROOM: Bytes = Bytes(66 * MIB);

impl LininstallParameters {
    fn expand(self) -> Vec<Task> {
        let device = self.device;
        let level = match self.wipe {
            InstallWipe::None => None,
            InstallWipe::Clear => Some(WipeLevel::Clear),
            InstallWipe::Purge => Some(WipeLevel::Purge),
        };
        let mut tasks = Vec::new();
        tasks.extend(level.map(|level| {
            Task::Wipe(WipeTask {
                verify: self.verify,
                ..WipeTask::new(WipeTargets::Hints(vec![device.clone()]), level)
            })
        }));
        let config_drive = self.config_drive.is_some() || self.config_drive_image.is_some();
        tasks.push(Task::WriteImage(WriteImageTask {
            grow: self.grow,
            leave_free: (self.grow != Grow::No && config_drive).then_some(CONFIG_DRIVE_ROOM),
            read_back: self.read_back,
            share: self.share,
            ..WriteImageTask::new(device.clone(), self.image)
        }));
        if config_drive {
            tasks.push(Task::ConfigDrive(ConfigDriveTask {
                device: device.clone(),
                content: self.config_drive,
                image: self.config_drive_image,
            }));
        }
        tasks.push(Task::BootEntry(BootEntryTask {
            device,
            label: self.boot_label,
            loader: None,
            position: self.boot_position,
        }));
        tasks.push(Task::Power(PowerTask { action: self.then }));
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lininstall_is_wipe_image_config_boot_power() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let parameters = json!({
            "device": {"serial": "S1"},
            "image": {"url": "https://i/debian.raw", "digest": digest, "compression": "none"},
            "config_drive": {"instance_id": "i-1", "hostname": "web1"},
        });
        let tasks = Profile::Lininstall.expand(parameters.clone()).expect("valid");
        let kinds: Vec<_> = tasks.iter().map(Task::kind).collect();
        assert_eq!(kinds, ["wipe", "write_image", "config_drive", "boot_entry", "power"]);

        let mut purge = parameters.clone();
        purge["wipe"] = json!("purge");
        let purged = Profile::Lininstall.expand(purge).expect("valid");
        assert!(matches!(&purged[0], Task::Wipe(wipe) if wipe.level == WipeLevel::Purge && wipe.allow.is_empty()));
        let mut unknown = parameters;
        unknown["fast"] = json!(true);
        assert_eq!(Profile::Lininstall.expand(unknown).expect_err("refused").code, FaultCode::TaskInvalid);
    }

    #[test]
    fn a_decommission_takes_every_disk_and_expects_those_on_record() {
        let recorded = json!([{"serial": "S1", "model": "M", "size": 1_000_000}]);
        let tasks = Profile::Decommission.expand(json!({"expect": recorded, "then": "power_off"})).expect("valid");
        let [Task::Wipe(wipe), Task::Power(_)] = tasks.as_slice() else { panic!("wipe and power: {tasks:?}") };
        assert_eq!((wipe.level, &wipe.devices), (WipeLevel::Purge, &WipeTargets::AllDisks));
        assert!(wipe.covers_hidden_areas() && wipe.allow.is_empty());
        assert_eq!(wipe.expect[0].serial, "S1");
        let nameless = Profile::Decommission.expand(json!({"expect": [{"serial": " "}]}));
        assert_eq!(nameless.expect_err("refused").code, FaultCode::TaskInvalid);
    }

    #[test]
    fn names_are_exact() {
        assert_eq!(Profile::named("wipe"), Some(Profile::Wipe));
        assert_eq!(Profile::named("Wipe"), None);
        assert_eq!(Profile::named("burn_in"), None);
    }

    #[test]
    fn a_burn_in_is_quick_unless_told() {
        let tasks = Profile::BurnIn.expand(Value::Null).expect("valid");
        assert_eq!(tasks, [Task::BurnIn(BurnInTask::named("quick"))]);
        assert!(!tasks[0].is_destructive());
        let unknown = Profile::BurnIn.expand(json!({"scenario": "gentle"}));
        assert!(unknown.expect_err("refused").message.contains("gentle"));
        let own =
            json!({"version": 1, "name": "x", "steps": [{"step": "disk", "duration": "1h", "verify_writes": true}]});
        let tasks = Profile::BurnIn.expand(json!({"scenario": own, "then": "power_off"})).expect("valid");
        assert!(tasks[0].is_destructive() && matches!(tasks[1], Task::Power(_)));
        let most = Profile::BurnIn.expand(json!({"reboots": BurnInParameters::MOST_REBOOTS, "then": "power_off"}));
        assert_eq!(most.expect("valid").len(), 242, "an order takes 256 tasks");
        let more = Profile::BurnIn.expand(json!({"reboots": BurnInParameters::MOST_REBOOTS + 1}));
        assert!(more.expect_err("refused").message.contains("reboots"));
    }
}
