//! What the person in front of the terminal sees: phases, announced with how long they usually take, and the summary.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(crate) struct Show {
    phases: Vec<(String, Duration)>,
    began: Option<Instant>,
}

impl Show {
    /// Announces a phase, runs it, and notes how long it took.
    pub(crate) fn phase<T>(
        &mut self,
        name: &str,
        usually: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.began.get_or_insert_with(Instant::now);
        println!("\n== {name} (usually {usually})");
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        match &result {
            Ok(_) => println!("   done in {}", seconds(took)),
            Err(_) => println!("   FAILED after {}", seconds(took)),
        }
        self.phases.push((name.to_owned(), took));
        result
    }

    pub(crate) fn summary(&self) {
        println!("\n== Summary");
        for (name, took) in &self.phases {
            println!("   {:>8}  {name}", seconds(*took));
        }
        let all = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        println!("   {:>8}  in all", seconds(all));
    }
}

/// One fact of a phase.
pub(crate) fn fact(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        println!("   {line}");
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

pub(crate) fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
