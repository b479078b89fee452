use super::kernels::{Kernel, SEEDS, Scratch};

#[test]
fn known_results() {
    let mut scratch = Scratch::default();
    let mut wrong = Vec::new();
    for kernel in Kernel::ALL {
        for seed in 0..SEEDS {
            let plain = kernel.run_plainly(seed, &mut scratch);
            if plain != kernel.expected(seed) {
                wrong.push(format!("{} {seed}: {plain:#018x}", kernel.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "the known results are\n{}", wrong.join("\n"));
}

#[test]
fn this_processor_computes_them() {
    let mut scratch = Scratch::default();
    let here: Vec<Kernel> = Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()).collect();
    assert!(here.len() >= 7, "plain code and SSE2 are everywhere: {here:?}");
    for kernel in here {
        for seed in 0..SEEDS {
            assert_eq!(kernel.run(seed, &mut scratch), kernel.expected(seed), "{} {seed}", kernel.name());
        }
    }
}

#[test]
fn seeds_and_kernels_differ() {
    let mut all: Vec<u64> = Kernel::ALL
        .into_iter()
        // Widths are alike on purpose.
        .filter(|kernel| !matches!(kernel.name(), "integer-avx2" | "integer-avx512" | "float-avx2" | "float-avx512"))
        .flat_map(|kernel| (0..SEEDS).map(move |seed| kernel.expected(seed)))
        .collect();
    let n = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), n);
}
