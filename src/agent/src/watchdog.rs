//! Feeds the hardware's watchdog, from a thread of the supervisor that waits for nothing else.

use std::path::Path;
use std::time::Duration;

use speediso_sys::roots::Roots;
use speediso_sys::watchdog::Watchdog;

use crate::drivers::Loading;

/// A machine that runs nothing for so long is restarted by its hardware.
const PATIENCE: Duration = Duration::from_secs(60);

/// `speediso.watchdog=off`, of a line that may be wrong elsewhere.
pub(crate) fn is_off(line: &str) -> bool {
    line.split_whitespace().any(|word| word == "speediso.watchdog=off")
}

/// Returns at once. Without a watchdog there is nothing to feed, which most virtual machines are content with.
pub(crate) fn feed(roots: Roots) {
    let started = move || {
        Loading::Drivers.wait();
        Watchdog::start(&roots, PATIENCE)
    };
    let fed = move || match started() {
        Ok(Some(watchdog)) => {
            tracing::info!("watchdog: {}, {} s", watchdog.name(), watchdog.patience().as_secs());
            // Thrice within its patience: one turn may come late.
            let pause = (watchdog.patience() / 3).max(Duration::from_millis(300));
            loop {
                if let Err(error) = watchdog.feed() {
                    tracing::error!("watchdog: {error}; it may restart this machine");
                }
                std::thread::sleep(pause);
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("watchdog: {error}; proceeding without"),
    };
    if let Err(error) = std::thread::Builder::new().name("watchdog".into()).spawn(fed) {
        tracing::warn!("watchdog: {error}; proceeding without");
    }
}

/// Where systemd looks for settings that nobody keeps.
const SETTINGS: &str = "/run/systemd/system.conf.d";

/// In the live system the watchdog that runs already is systemd's to feed.
pub(crate) fn hand_over() -> std::io::Result<()> {
    let settings = Path::new(SETTINGS);
    std::fs::create_dir_all(settings)?;
    let text = format!("[Manager]\nRuntimeWatchdogSec={}\n", PATIENCE.as_secs());
    std::fs::write(settings.join("speediso-watchdog.conf"), text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_left_alone_where_the_line_says_so() {
        assert!(super::is_off("speediso.oops=1 speediso.watchdog=off"));
        assert!(!super::is_off("speediso.watchdog=on") && !super::is_off(""));
    }
}
