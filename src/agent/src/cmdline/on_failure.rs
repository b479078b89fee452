//! `speediso.on_failure=`: what a machine does that cannot go on.

use std::time::Duration;

use speediso_model::task::PowerAction;

/// What follows a failure that ends the agent's work, or one on the way to the controller that does not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The live system stays up, with a shell for whoever is at a console.
    #[default]
    Shell,
    /// The same, and what may pass by itself is tried again.
    Retry,
    /// The live system stays up, without shells at its consoles.
    Wait,
    /// What may pass by itself is given this long.
    Reboot(Duration),
    PowerOff(Duration),
}

impl OnFailure {
    /// For a link to come up, a DHCP server to answer, a controller to be restarted.
    const PATIENCE: Duration = Duration::from_secs(300);

    /// `shell`, `retry`, `wait`, `reboot` or `poweroff`, the last two with `:SECONDS` if need be.
    pub(super) fn of(text: &str) -> Option<Self> {
        let (word, patience) = match text.split_once(':') {
            Some((word, seconds)) => {
                let number =
                    seconds.bytes().all(|b| b.is_ascii_digit()).then(|| seconds.parse::<u64>().ok()).flatten()?;
                (word, Some(Duration::from_secs((number <= 86_400).then_some(number)?)))
            }
            None => (text, None),
        };
        let within = patience.unwrap_or(Self::PATIENCE);
        match (word, patience) {
            ("shell", None) => Some(Self::Shell),
            ("retry", None) => Some(Self::Retry),
            ("wait", None) => Some(Self::Wait),
            ("reboot", _) => Some(Self::Reboot(within)),
            ("poweroff", _) => Some(Self::PowerOff(within)),
            _ => None,
        }
    }

    /// What is done, and how long what may pass is waited for.
    #[must_use]
    pub fn power(self) -> Option<(PowerAction, Duration)> {
        match self {
            Self::Reboot(patience) => Some((PowerAction::Reboot, patience)),
            Self::PowerOff(patience) => Some((PowerAction::PowerOff, patience)),
            Self::Shell | Self::Retry | Self::Wait => None,
        }
    }
}

/// Of a line that may be wrong elsewhere; what is wrong here itself says nothing.
#[must_use]
pub fn of_line(line: &str) -> OnFailure {
    let words = line.split_whitespace().filter_map(|word| word.strip_prefix("speediso.on_failure="));
    words.filter_map(OnFailure::of).next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_their_patience() {
        let seconds = Duration::from_secs;
        assert_eq!(OnFailure::of("reboot"), Some(OnFailure::Reboot(seconds(300))));
        assert_eq!(OnFailure::of("poweroff:20"), Some(OnFailure::PowerOff(seconds(20))));
        assert_eq!(OnFailure::of("reboot:0").and_then(OnFailure::power), Some((PowerAction::Reboot, seconds(0))));
        assert_eq!(OnFailure::of("wait").and_then(OnFailure::power), None);
        for bad in [
            "",
            "Reboot",
            "reboot:",
            "reboot:-1",
            "reboot:1.5",
            "reboot:86401",
            "shell:5",
            "poweroff:99999999999999999999",
        ] {
            assert_eq!(OnFailure::of(bad), None, "{bad}");
        }
        assert_eq!(of_line("speediso.oops speediso.on_failure=wait x"), OnFailure::Wait);
        assert_eq!(of_line("speediso.on_failure=maybe"), OnFailure::Shell);
    }
}
