//! Who this agent is: a key made in this boot, and what the controller certified for it.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use speediso_model::api::{Admission, approval_code};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{Epoch, NodeId};
use speediso_model::ssh::SshPolicy;

use crate::state::StateDir;
use crate::tls::{Identity, sha256};

/// The key of this boot.
#[derive(Debug)]
pub(crate) struct BootKey(KeyPair);

fn internal(what: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::Internal, what).because(error.to_string())
}

impl BootKey {
    /// The one that is there, or a new one.
    pub(crate) fn load_or_make(state: &StateDir) -> Result<Self, Fault> {
        let failed = |e: std::io::Error| internal("keeping the key of this boot", e);
        if let Some(pem) = state.get("key.pem").map_err(failed)? {
            let text = String::from_utf8_lossy(&pem);
            return KeyPair::from_pem(&text).map(Self).map_err(|e| internal("reading the key of this boot", e));
        }
        let key = KeyPair::generate().map_err(|e| internal("making a key", e))?;
        state.put("key.pem", key.serialize_pem().as_bytes()).map_err(failed)?;
        Ok(Self(key))
    }

    /// What the approver must see too.
    pub(crate) fn code(&self) -> String {
        use rcgen::PublicKeyData as _;
        approval_code(&sha256(&self.0.subject_public_key_info()))
    }

    pub(crate) fn request(&self) -> Result<String, Fault> {
        let request = CertificateParams::default().serialize_request(&self.0).and_then(|r| r.pem());
        request.map_err(|e| internal("making a certificate request", e))
    }

    /// Key and certificate chain together.
    pub(crate) fn identity(&self, chain_pem: &str) -> Result<Identity, Fault> {
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| internal("reading the certificate from the controller", e))?;
        let key = PrivateKeyDer::from_pem_slice(self.0.serialize_pem().as_bytes())
            .map_err(|e| internal("reading the key of this boot", e))?;
        Ok(Identity { chain, key })
    }
}

/// What admission gave us, kept for an agent that is restarted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) epoch: Epoch,
    pub(crate) certificate: String,
    pub(crate) ssh_keys: Vec<String>,
    #[serde(default)]
    pub(crate) ssh: SshPolicy,
    #[serde(default)]
    pub(crate) idle_reboot_s: Option<u64>,
}

impl Session {
    const FILE: &'static str = "session.json";

    pub(crate) fn load(state: &StateDir) -> Option<Self> {
        Self::read(state).ok()?
    }

    /// The same for who must not take one that cannot be read for none.
    pub(crate) fn read(state: &StateDir) -> std::io::Result<Option<Self>> {
        let kept = state.get(Self::FILE)?;
        kept.map(|bytes| serde_json::from_slice(&bytes).map_err(std::io::Error::other)).transpose()
    }

    pub(crate) fn of(admission: Admission) -> Self {
        Self {
            node: admission.node,
            name: admission.name,
            epoch: admission.epoch,
            certificate: admission.certificate,
            ssh_keys: admission.ssh_keys,
            ssh: admission.ssh,
            idle_reboot_s: admission.idle_reboot_s,
        }
    }

    pub(crate) fn store(&self, state: &StateDir) -> Result<(), Fault> {
        let text = serde_json::to_vec(self).map_err(|e| internal("keeping the session", e))?;
        state.put(Self::FILE, &text).map_err(|e| internal("keeping the session", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_cannot_be_read_is_not_taken_for_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(dir.path()).expect("opened");
        assert!(matches!(Session::read(&state), Ok(None)));
        state.put(Session::FILE, b"{\"ssh\":\"as").expect("written");
        assert!(Session::read(&state).is_err() && Session::load(&state).is_none());
    }
}
