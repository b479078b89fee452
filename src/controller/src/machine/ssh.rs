//! The way into the live system, as operators give it: for a time, to this boot, and said in the events.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::ssh::{
    DEFAULT_MINUTES, MAX_TUNNELS, SshAccessRequest, SshReport, SshWish, TimedKey, TunnelId, fingerprint,
};

use super::{Decision, Effects, Machine};
use crate::store::Millis;
use crate::store::ssh::{AskedTunnel, GivenKey, NodeSsh};

/// How long a tunnel that was asked for waits for the agent.
pub const TUNNEL_PATIENCE: Millis = 30_000;
/// Keys that are given at a time.
const MAX_KEYS: usize = 8;
const MINUTE: Millis = 60_000;

fn left(until: Millis, now: Millis) -> u64 {
    u64::try_from(until - now).unwrap_or(0)
}

impl Machine {
    /// A new boot has another host key, and nobody was let into it.
    pub fn ssh_of_new_boot(&mut self, host_key: Option<String>) {
        let number = self.node.ssh.number;
        self.node.ssh = NodeSsh { host_key, number, in_force: number, ..NodeSsh::default() };
    }

    /// Opens the machine's ssh for a while, or ends that.
    ///
    /// # Errors
    /// When the request is malformed, or no agent is there that could hear of it.
    pub fn allow_ssh(&mut self, request: &SshAccessRequest, by: &str, fx: &mut Effects) -> Decision {
        request.check().map_err(|why| Fault::new(FaultCode::TaskInvalid, why))?;
        self.has_live_agent()?;
        let now = self.now;
        let minutes = request.minutes.unwrap_or(DEFAULT_MINUTES);
        let name = self.node.name.clone();
        let ssh = &mut self.node.ssh;
        ssh.number += 1;
        ssh.refused = None;
        ssh.keys.retain(|given| given.until > now);
        if minutes == 0 {
            ssh.keys.clear();
            ssh.tunnels.clear();
            ssh.until = now;
            fx.say(by, None, format!("ssh to {name}: what was given ends now"));
            return Ok(());
        }
        let until = now + Millis::from(minutes) * MINUTE;
        ssh.until = ssh.until.max(until);
        let mut whom = String::new();
        if let Some(key) = &request.key {
            ssh.keys.retain(|given| given.key != *key);
            if ssh.keys.len() >= MAX_KEYS {
                ssh.keys.remove(0);
            }
            ssh.keys.push(GivenKey { key: key.clone(), until });
            whom = format!(", with the key {} too", fingerprint(key).unwrap_or_default());
        }
        fx.say(by, None, format!("ssh to {name} is open for {minutes} minutes{whom}"));
        Ok(())
    }

    /// An operator waits for a stream from the machine. It opens the ssh as any access does.
    ///
    /// # Errors
    /// When no agent is there, or too many tunnels are asked for.
    pub fn ask_tunnel(&mut self, id: TunnelId, by: &str, fx: &mut Effects) -> Decision {
        self.has_live_agent()?;
        let now = self.now;
        self.node.ssh.tunnels.retain(|asked| asked.until > now);
        if self.node.ssh.tunnels.len() >= MAX_TUNNELS {
            return Err(Fault::new(
                FaultCode::TimedOut,
                format!("{} has not answered {MAX_TUNNELS} tunnels that are asked for already", self.node.name),
            ));
        }
        if self.node.ssh.until <= now {
            self.allow_ssh(&SshAccessRequest::default(), by, fx)?;
        }
        self.node.ssh.tunnels.push(AskedTunnel { id, until: now + TUNNEL_PATIENCE });
        fx.say(by, None, format!("a tunnel to the ssh of {} was asked for", self.node.name));
        Ok(())
    }

    /// The agent brings a tunnel, or nobody waits for it any more.
    ///
    /// # Errors
    /// When none was asked for of this name.
    pub fn take_tunnel(&mut self, id: TunnelId) -> Decision {
        let before = self.node.ssh.tunnels.len();
        self.node.ssh.tunnels.retain(|asked| asked.id != id);
        if self.node.ssh.tunnels.len() == before {
            return Err(Fault::new(FaultCode::Cancelled, "nobody waits for this tunnel any more"));
        }
        Ok(())
    }

    pub fn ssh_in_force(&mut self, report: &SshReport) {
        let ssh = &mut self.node.ssh;
        if report.number <= ssh.number && report.number >= ssh.in_force {
            ssh.in_force = report.number;
            ssh.refused =
                report.refused.as_ref().map(|why| why.chars().filter(|c| !c.is_control()).take(200).collect());
        }
    }

    /// What the agent is told with every answer; also that it is over, until it has heard that.
    #[must_use]
    pub fn ssh_wish(&self) -> Option<SshWish> {
        let (ssh, now) = (&self.node.ssh, self.now);
        if ssh.until <= now && ssh.in_force == ssh.number {
            return None;
        }
        let open = |given: &&GivenKey| given.until > now;
        let keys = ssh.keys.iter().filter(open);
        Some(SshWish {
            number: ssh.number,
            left_ms: left(ssh.until, now),
            keys: keys.map(|g| TimedKey { key: g.key.clone(), left_ms: left(g.until, now) }).collect(),
            tunnels: ssh.tunnels.iter().filter(|asked| asked.until > now).map(|asked| asked.id).collect(),
        })
    }

    /// Whether the agent has not heard of something yet.
    #[must_use]
    pub fn has_ssh_news(&self) -> bool {
        let ssh = &self.node.ssh;
        ssh.in_force != ssh.number || ssh.tunnels.iter().any(|asked| asked.until > self.now)
    }

    fn has_live_agent(&self) -> Decision {
        self.not_quarantined()?;
        self.not_pending()?;
        if self.is_online() {
            return Ok(());
        }
        let mut fault = Fault::new(
            FaultCode::LeaseLost,
            format!("{} has no agent now, so nobody can open its ssh; nothing was changed", self.node.name),
        );
        fault.advice =
            "boot it into the live system (`speediso arm`, then from the network), or use its console".into();
        Err(fault)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use speediso_model::id::{BootId, Epoch};
    use speediso_model::inventory::SystemVendor;
    use speediso_model::node::NodeState;

    use super::*;
    use crate::store::{Node, Session, record::Noticed};

    fn machine() -> Machine {
        let mut node = Node::new("m".into(), NodeState::Manageable, SystemVendor::default(), Vec::new());
        node.epoch = Epoch(1);
        let session = Session {
            node: node.id,
            epoch: Epoch(1),
            boot_id: BootId::random(),
            key: String::new(),
            certificate: String::new(),
            lease_until: 1_000_000_000,
            last_seen: 0,
            address: None,
            revoked: false,
            noticed: Noticed::Nothing,
        };
        Machine { node, session: Some(session), order: None, now: 0 }
    }

    fn key(c: char) -> String {
        format!("ssh-ed25519 {}", c.to_string().repeat(68))
    }

    fn asked(minutes: u32, key: Option<String>) -> SshAccessRequest {
        SshAccessRequest { minutes: Some(minutes), key }
    }

    #[test]
    fn each_key_has_its_own_time_and_the_end_is_told_until_it_is_heard() {
        let (mut m, mut fx) = (machine(), Effects::default());
        assert_eq!(m.ssh_wish(), None);
        m.allow_ssh(&asked(10, Some(key('A'))), "operator", &mut fx).unwrap();
        m.allow_ssh(&asked(60, Some(key('B'))), "operator", &mut fx).unwrap();
        let wish = m.ssh_wish().unwrap();
        assert_eq!((wish.number, wish.left_ms, wish.keys.len()), (2, 3_600_000, 2));
        assert!(m.has_ssh_news() && fx.events[0].text.contains("SHA256:"));
        m.ssh_in_force(&SshReport { epoch: Epoch(1), number: 2, refused: None });
        assert!(!m.has_ssh_news());
        m.now = 11 * MINUTE;
        assert_eq!(m.ssh_wish().unwrap().keys.len(), 1);
        m.now = 61 * MINUTE;
        assert_eq!(m.ssh_wish(), None);
        m.allow_ssh(&asked(60, Some(key('B'))), "operator", &mut fx).unwrap();
        m.allow_ssh(&asked(0, None), "operator", &mut fx).unwrap();
        let over = m.ssh_wish().unwrap();
        assert_eq!((over.left_ms, over.keys.len()), (0, 0));
        m.ssh_in_force(&SshReport { epoch: Epoch(1), number: over.number, refused: None });
        assert_eq!(m.ssh_wish(), None);
    }

    #[test]
    fn tunnels_are_few_taken_once_and_given_up() {
        let (mut m, mut fx) = (machine(), Effects::default());
        let ids: Vec<TunnelId> = (0..5).map(|n| TunnelId(uuid::Uuid::from_u128(n))).collect();
        for id in &ids[..4] {
            m.ask_tunnel(*id, "operator", &mut fx).unwrap();
        }
        assert!(m.ask_tunnel(ids[4], "operator", &mut fx).is_err());
        assert_eq!(m.ssh_wish().unwrap().tunnels, ids[..4]);
        m.take_tunnel(ids[0]).unwrap();
        assert!(m.take_tunnel(ids[0]).is_err());
        m.now = TUNNEL_PATIENCE;
        assert!(m.ssh_wish().unwrap().tunnels.is_empty());
    }

    #[test]
    fn nothing_is_given_to_a_machine_without_an_agent_nor_to_the_next_boot() {
        let (mut m, mut fx) = (machine(), Effects::default());
        m.allow_ssh(&asked(10, Some(key('A'))), "operator", &mut fx).unwrap();
        m.ssh_of_new_boot(Some(key('H')));
        assert_eq!((m.ssh_wish(), m.node.ssh.host_key.as_deref()), (None, Some(key('H').as_str())));
        m.now = 2_000_000_000;
        assert!(m.allow_ssh(&asked(10, None), "operator", &mut fx).is_err());
    }
}
