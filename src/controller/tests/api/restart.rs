//! The real program, killed without warning.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Agent, Client, declined, done, mac, plan, write_image};
use serde_json::{Value, json};
use speediso_model::api::{NodeView, OrderView, path};
use speediso_model::fault::FaultCode;
use speediso_model::order::{OrderState, TaskState};

pub(crate) struct Controller {
    child: Child,
    pub(crate) listen: String,
    pub(crate) boot: String,
}

impl Controller {
    pub(crate) fn start(dir: &Path, listen: &str, boot: &str) -> Self {
        Self::start_with(dir, listen, boot, &[])
    }

    pub(crate) fn start_with(dir: &Path, listen: &str, boot: &str, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_speediso-controller"))
            .args(["serve", "--listen", listen, "--boot-listen", boot])
            .args(more)
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--boot-files")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("speediso-controller ready "), "{line:?}");
        let word = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap().to_owned();
        Self { child, listen: word("listen="), boot: word("boot-listen=") }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn killed_between_start_and_end_it_loses_nothing_and_starts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(dir.path(), "127.0.0.1:0", "127.0.0.1:0");
    let url = format!("https://{}", controller.listen);
    let data = dir.path().join("data");
    let operator = Client::operator(&url, &data);
    let ca = std::fs::read_to_string(data.join("ca.pem")).unwrap();

    let node: NodeView = operator.post(path::NODES, &json!({"name": "m1", "macs": [mac(1)]})).await.unwrap();
    let orders = path::NODE_ORDERS.replace("{node}", &node.id.to_string());
    let order: OrderView = operator.post(&orders, &json!({"tasks": [write_image()]})).await.unwrap();
    let script = crate::support::script(&format!("http://{}/boot/ipxe?mac={}", controller.boot, mac(1))).await;
    let token = script.split_whitespace().find_map(|w| w.strip_prefix("speediso.token=")).unwrap().to_owned();
    let mut agent = Agent::new(&url, &ca, 1);
    agent.enrol(Some(token.clone())).await.unwrap();
    let run = agent.grant().await.run;
    agent.start(run, &plan("write_image")).await.unwrap();
    let (listen, boot) = (controller.listen.clone(), controller.boot.clone());
    controller.kill();

    // The write goes on meanwhile; nobody answers.
    assert!(agent.client.http.get(format!("{url}{}?epoch=1", path::NEXT)).send().await.is_err());

    let controller = Controller::start(dir.path(), &listen, &boot);
    let same_ca = std::fs::read_to_string(data.join("ca.pem")).unwrap();
    assert_eq!(same_ca, ca);
    assert!(agent.next().await.unwrap().grant.is_none(), "what runs is not handed out again");
    agent.start(run, &plan("write_image")).await.unwrap();
    let mut other = plan("write_image");
    other.effects.push("more".into());
    declined(agent.start(run, &other).await, 409, FaultCode::PlanMismatch);
    let path_of_order = path::ORDER.replace("{order}", &order.order.id.to_string());
    let view: OrderView = operator.get(&path_of_order).await.unwrap();
    assert!(matches!(view.order.tasks[0].state, TaskState::Running { run: r, .. } if r == run));
    assert!(!agent.end(run, done()).await.unwrap().late);
    let view: OrderView = operator.get(&path_of_order).await.unwrap();
    assert_eq!(view.order.state, OrderState::Done);
    // The token is still a used one.
    let mut thief = Agent::new(&url, &ca, 1);
    declined(thief.enrol(Some(token)).await, 403, FaultCode::IdentityClash);
    let _: Value = operator.get(path::ALERTS).await.unwrap();
    drop(controller);
}
