//! `speediso.on_failure=reboot` and `poweroff`, carried out: at once after what ends the work, and after some patience for
//! what may pass by itself and does not.

use std::time::Duration;

use speediso_model::task::PowerAction;

use crate::cmdline::OnFailure;
use crate::console::board::{Concerns, Standing, Status};
use crate::engine::{Engine, LAST_LINES};
use crate::logs;

/// Something is in the way to the controller, and has been there in every look at it.
fn is_stuck(status: &Status) -> bool {
    let on_its_way = !matches!(status.standing, Standing::Enrolled { .. } | Standing::Pending { .. });
    on_its_way && status.fault.as_ref().is_some_and(|f| matches!(f.concerns, Concerns::Network | Concerns::Controller))
}

/// Watches over the way to the controller until it was gone once.
pub(crate) async fn watch(on_failure: OnFailure, engine: Engine) {
    let Some((action, patience)) = on_failure.power() else { return };
    let mut status = engine.board().subscribe();
    loop {
        let arrived = |s: &Status| matches!(s.standing, Standing::Enrolled { .. });
        let has_arrived = match status.wait_for(|s| is_stuck(s) || arrived(s)).await {
            Ok(now) => arrived(&now),
            Err(_) => true,
        };
        if has_arrived {
            return;
        }
        tracing::warn!(
            "speediso.on_failure: {} in {} s unless this passes",
            if action == PowerAction::Reboot { "restarting" } else { "powering off" },
            patience.as_secs()
        );
        if tokio::time::timeout(patience, status.wait_for(|s| !is_stuck(s))).await.is_err() {
            go_down(&engine, action).await;
            return;
        }
    }
}

/// Ends this boot, once nothing is being written and everything has been said.
pub(crate) async fn go_down(engine: &Engine, action: PowerAction) {
    tracing::warn!("speediso.on_failure says {action:?}");
    // No write is cut off by our own hand.
    engine.at_rest().await;
    // Nor is the failure cut off in the middle of its statement.
    let _ = tokio::task::spawn_blocking(|| logs::drain(LAST_LINES)).await;
    // The BMC's log is slow, and the last to be read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let Err(fault) = speediso_tasks::perform_power(action);
    tracing::error!("{fault}");
}

#[cfg(test)]
mod tests {
    use speediso_model::event::EventKind;
    use speediso_model::fault::{Fault, FaultCode};

    use super::*;
    use crate::console::board::Board;

    #[test]
    fn stuck_is_who_has_trouble_on_the_way_and_nobody_else() {
        let board = Board::default();
        let stuck = || is_stuck(&board.subscribe().borrow());
        assert!(!stuck());
        board.note(None, &EventKind::Trouble { fault: Fault::new(FaultCode::NoDhcp, "no server") });
        assert!(stuck());
        board.addressed(None, "192.0.2.1/24".into());
        board.seeking("https://192.0.2.1");
        assert!(!stuck());
        board.troubled(&Fault::new(FaultCode::TlsPinMismatch, "another CA"));
        assert!(stuck());
        board.pending("0000-0000");
        assert!(!stuck(), "waiting for a person is no failure");
        board.enrolled("web1");
        board.troubled(&Fault::new(FaultCode::ControllerUnreachable, "away"));
        assert!(!stuck(), "a controller that is away is waited for");
    }
}
