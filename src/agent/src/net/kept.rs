//! What the DHCP server said, whole, for people and for tasks that come later: options that mean nothing to us may mean
//! something to the site. Nothing here acts on any of it.

use serde_json::{Value, json};
use speediso_model::plan::hex;

use super::{Configured, Method};

/// In the directory of the agent's state.
pub(crate) const FILE: &str = "dhcp.json";

/// `None` where no lease was granted.
pub(crate) fn document(network: &Configured) -> Option<Value> {
    let Method::Dhcp(lease) = &network.method else { return None };
    let options: serde_json::Map<String, Value> = lease
        .options
        .iter()
        .map(|(code, raw)| {
            let text =
                std::str::from_utf8(raw).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control));
            (code.to_string(), json!({"hex": hex(raw), "text": text}))
        })
        .collect();
    Some(json!({
        "interface": network.nic,
        "address": format!("{}/{}", lease.address, lease.prefix),
        "server": lease.server,
        "granted": jiff::Timestamp::now().to_string(),
        "options": options,
    }))
}
