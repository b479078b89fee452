//! Cache lines: making the processor read from memory what it has in a cache.

/// Words of a cache line.
const LINE: usize = 8;

/// What is read next comes from memory.
pub fn forget(words: &[u64]) {
    for line in words.chunks(LINE) {
        flush(&line[0]);
    }
    fence();
}

/// Reads two places in turn, from memory each time. Their rows are opened and closed as often, which disturbs the rows
/// between, in a module that is weak.
#[must_use]
pub fn hammer(words: &[u64], one: usize, other: usize, times: u32) -> u64 {
    let mut sum = 0_u64;
    for _ in 0..times {
        for at in [one, other] {
            sum = sum.wrapping_add(std::hint::black_box(words[at]));
            flush(&words[at]);
        }
        fence();
    }
    sum
}

#[cfg(target_arch = "x86_64")]
fn flush(word: &u64) {
    // SAFETY: the address is that of a live reference; a flush changes nothing that a program can read.
    unsafe { std::arch::x86_64::_mm_clflush(std::ptr::from_ref(word).cast()) }
}

#[cfg(target_arch = "x86_64")]
fn fence() {
    // SAFETY: orders memory accesses and has no requirement; SSE2 is part of every x86-64.
    unsafe { std::arch::x86_64::_mm_mfence() }
}

// Elsewhere other work has to push it out of the caches.
#[cfg(not(target_arch = "x86_64"))]
fn flush(word: &u64) {
    std::hint::black_box(word);
}

#[cfg(not(target_arch = "x86_64"))]
fn fence() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}
