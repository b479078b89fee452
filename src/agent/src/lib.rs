//! The program in the ramdisk: finds its network, proves who the controller is, carries out tasks, tells the truth.

#![forbid(unsafe_code)]

mod backoff;
mod bmc_log;
pub mod boot;
pub mod build;
mod client;
pub mod cmdline;
pub mod console;
pub mod disks;
pub mod doctor;
pub mod doors;
pub mod drivers;
pub mod engine;
mod identity;
pub mod idle;
pub mod inventory;
mod journal;
pub mod live;
pub mod lldp;
pub mod logs;
mod medium;
mod mounting;
pub mod net;
mod parameters;
mod patience;
mod ready;
pub mod run;
pub mod secrets;
mod share;
pub mod shell;
pub mod ssh;
pub mod state;
pub mod supervise;
pub mod syslog;
pub mod tls;
mod watchdog;
