//! What many machines at once cost the image's server, with and without sharing.

use speediso_lab::hall::{self, Hall};

/// Prints one line for each number of machines. `hall` is all but their number.
pub(crate) fn sharing(hall: &Hall, machines: &[usize]) {
    println!(
        "image: {} MiB of the disk, {:.0} MiB stored; links: {:.0} MiB/s a machine, {:.0} the server and each switch of {} machines",
        hall.image_mib,
        f64::from(hall.image_mib) * hall.stored,
        hall.machine_link,
        hall.server_link,
        hall.per_switch
    );
    println!("all are switched on within {} s\n", hall.spread_ms / 1000);
    println!("             |       without sharing |                                with sharing");
    println!("    machines | from server      time | from server  of one  time  same switch  slowest  calls/s");
    let stored = f64::from(hall.image_mib) * hall.stored;
    for n in machines {
        let without = hall::run(&Hall { machines: *n, sharing: false, ..hall.clone() });
        let with = hall::run(&Hall { machines: *n, sharing: true, ..hall.clone() });
        println!(
            "{n:12} | {:7.0} MiB {:7.1} s | {:7.0} MiB {:6.2} {:5.1} s {:10.0} % {:6.1} s {:8}",
            without.origin_mib,
            without.seconds,
            with.origin_mib,
            with.origin_mib / stored,
            with.seconds,
            100.0 * with.near_mib / with.peer_mib.max(1.0),
            with.slowest_seconds,
            with.announcements,
        );
    }
}
