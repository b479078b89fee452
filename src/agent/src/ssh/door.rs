//! Whether the ssh server is open, and for which keys: decided purely from what was said so far.

use std::time::Duration;

use speediso_model::ssh::{SshPolicy, SshWish};

use super::server::LetIn;

/// What the boot entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Word {
    #[default]
    Nothing,
    On,
    Off,
}

/// Everything that decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    pub(super) word: Word,
    pub(super) policy: SshPolicy,
    /// From the command line and the controller: good for the whole boot.
    pub(super) standing: Vec<String>,
    pub(super) timed: Vec<LetIn>,
    /// Of an operator's wish: its number, and the uptime at which it ends.
    pub(super) number: u64,
    pub(super) asked_until_ms: u64,
    /// A task runs, or may run at any moment, and nobody was said to look at it.
    pub(super) unattended: bool,
    /// The same of the live image's own tasks.
    pub(super) image_tasks: bool,
}

impl Door {
    /// Takes a wish up. Whether it is news; an older one is none.
    pub(super) fn heed(&mut self, wish: &SshWish, uptime_ms: u64) -> bool {
        if wish.number <= self.number {
            return false;
        }
        self.number = wish.number;
        self.asked_until_ms = uptime_ms + wish.left_ms;
        self.timed = wish
            .keys
            .iter()
            .map(|given| LetIn { key: given.key.clone(), until_ms: Some(uptime_ms + given.left_ms) })
            .collect();
        true
    }

    /// Keys that are let in now, and whether anybody is.
    pub(super) fn now(&self, uptime_ms: u64) -> (Vec<LetIn>, bool) {
        let mut keys: Vec<LetIn> = self.standing.iter().map(|key| LetIn { key: key.clone(), until_ms: None }).collect();
        let more = self.timed.iter().filter(|k| k.until_ms.is_some_and(|until| until > uptime_ms));
        keys.extend(more.filter(|k| !self.standing.contains(&k.key)).cloned());
        let asked = self.asked_until_ms > uptime_ms;
        let open = match (self.word, self.policy) {
            (Word::Off, _) => false,
            (Word::On, _) | (Word::Nothing, SshPolicy::Always) => true,
            (Word::Nothing, SshPolicy::Auto) => asked || !(self.unattended || self.image_tasks),
            (Word::Nothing, SshPolicy::Asked) => asked,
        };
        let open = open && !keys.is_empty();
        (keys, open)
    }

    /// Whether it is to be open in the live system before the agent is there, where tasks may run by then.
    pub(super) fn is_open_there(&self, tasks_follow: bool, uptime_ms: u64) -> bool {
        let there = Self { image_tasks: tasks_follow, ..self.clone() };
        there.now(uptime_ms).1
    }

    /// Why a wish cannot be fulfilled.
    pub(super) fn refusal(&self, uptime_ms: u64) -> Option<String> {
        if self.word == Word::Off {
            return Some("speediso.ssh=off stands on its command line".into());
        }
        let nobody = self.now(uptime_ms).0.is_empty() && self.asked_until_ms > uptime_ms;
        nobody
            .then(|| "it lets no key in: send one along, or give speediso.sshkey= or the controller's --ssh-key".into())
    }

    /// When to look again without anything being said.
    pub(super) fn next_change(&self, uptime_ms: u64) -> Option<Duration> {
        let ends = self.timed.iter().filter_map(|k| k.until_ms).chain([self.asked_until_ms]);
        ends.filter(|end| *end > uptime_ms).min().map(|end| Duration::from_millis(end - uptime_ms))
    }
}

#[cfg(test)]
mod tests {
    use speediso_model::ssh::TimedKey;

    use super::*;

    fn key(c: char) -> String {
        format!("ssh-ed25519 {}", c.to_string().repeat(68))
    }

    fn wish(number: u64, left_ms: u64, keys: &[(char, u64)]) -> SshWish {
        let keys = keys.iter().map(|(c, left_ms)| TimedKey { key: key(*c), left_ms: *left_ms }).collect();
        SshWish { number, left_ms, keys, tunnels: Vec::new() }
    }

    #[test]
    fn who_is_let_in_when() {
        use SshPolicy::{Always, Asked, Auto};
        // Boot entry, policy, a task runs, an operator asked: open?
        let table = [
            (Word::Nothing, Auto, false, false, true),
            (Word::Nothing, Auto, true, false, false),
            (Word::Nothing, Auto, true, true, true),
            (Word::Nothing, Asked, false, false, false),
            (Word::Nothing, Asked, true, true, true),
            (Word::Nothing, Always, true, false, true),
            (Word::On, Asked, true, false, true),
            (Word::Off, Always, false, true, false),
        ];
        for (word, policy, unattended, asked, open) in table {
            let mut door = Door { word, policy, unattended, standing: vec![key('A')], ..Door::default() };
            if asked {
                assert!(door.heed(&wish(1, 1000, &[]), 0));
            }
            assert_eq!(door.now(500).1, open, "{word:?} {policy:?} {unattended} {asked}");
            door.unattended = false;
            door.image_tasks = unattended;
            assert_eq!(door.now(500).1, open, "{word:?} {policy:?} {unattended} {asked}, of the image");
            door.image_tasks = false;
            assert_eq!(door.is_open_there(unattended, 500), open, "{word:?} {policy:?} {unattended} {asked}, to come");
            door.standing.clear();
            assert!(!door.now(500).1, "nobody is let in without a key");
        }
    }

    #[test]
    fn a_wish_ends_by_itself_and_an_old_one_changes_nothing() {
        let mut door = Door { unattended: true, ..Door::default() };
        assert!(door.heed(&wish(2, 5000, &[('B', 1000)]), 10_000));
        assert!(!door.heed(&wish(1, 90_000, &[('C', 90_000)]), 10_000));
        assert_eq!(door.now(10_500).0[0].until_ms, Some(11_000));
        assert_eq!(door.next_change(10_500), Some(Duration::from_millis(500)));
        assert_eq!(door.now(11_000), (Vec::new(), false));
        assert_eq!(door.next_change(16_000), None);
        assert!(door.refusal(11_500).is_some_and(|why| why.contains("no key")));
        assert!(door.heed(&wish(3, 0, &[]), 12_000));
        assert_eq!((door.now(12_000).1, door.refusal(12_000)), (false, None));
    }
}
