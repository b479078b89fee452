//! The program in the ramdisk: finds its network, proves who the controller is, carries out tasks, tells the truth.

#![forbid(unsafe_code)]

mod backoff;
pub mod boot;
pub mod build;
mod client;
pub mod cmdline;
pub mod console;
pub mod disks;
pub mod doctor;
pub mod doors;
pub mod engine;
mod identity;
pub mod inventory;
mod journal;
pub mod lldp;
pub mod logs;
pub mod net;
mod ready;
pub mod run;
pub mod secrets;
mod share;
pub mod ssh;
pub mod state;
pub mod supervise;
pub mod syslog;
pub mod tls;
