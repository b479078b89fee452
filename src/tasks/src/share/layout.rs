//! How an image is cut into what machines give each other. Every machine cuts the same image alike.

use speediso_image::manifest::{Chunk, Index, Manifest};
use speediso_model::share::MAX_SEGMENTS;

use crate::gptedit::EDGE;

/// Chunks that follow one another, written as one job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }
}

#[derive(Debug)]
pub(crate) struct Layout {
    /// In the order of the disk: what machines share.
    jobs: Vec<Run>,
    /// So many jobs make a segment; the last has the rest.
    per_segment: usize,
    /// Data that each machine fetches for itself: a disk's first and last MiB are held back until the end, and so cannot
    /// be read back from it.
    pub(crate) private: Vec<Run>,
    pub(crate) zeroes: Vec<Run>,
}

impl Layout {
    /// `most_at` says how many chunks from a given one on make one job.
    pub(crate) fn of(index: &Index, manifest: &Manifest, most_at: impl Fn(u64) -> u64) -> Self {
        let (mut jobs, mut private, mut zeroes) = (Vec::new(), Vec::new(), Vec::new());
        let held_back = |chunk: u64| {
            let range = manifest.disk_range(chunk);
            range.start < EDGE || range.end > manifest.disk_size().saturating_sub(EDGE)
        };
        let mut first = 0;
        while first < index.chunk_count() {
            let most = most_at(first);
            let zero = index.chunk(first) == Chunk::Zero;
            let is_private = !zero && held_back(first);
            let same = |n: &u64| zero || held_back(first + n) == is_private;
            let count = (1..most).find(|n| !same(n)).unwrap_or(most);
            let list = match (zero, is_private) {
                (true, _) => &mut zeroes,
                (false, true) => &mut private,
                (false, false) => &mut jobs,
            };
            list.push(Run { first, count });
            first += count;
        }
        let per_segment = jobs.len().div_ceil(MAX_SEGMENTS).max(1);
        Self { jobs, per_segment, private, zeroes }
    }

    /// Jobs of each segment.
    pub(crate) fn segments(&self) -> Vec<u32> {
        self.jobs.chunks(self.per_segment).map(|jobs| u32::try_from(jobs.len()).unwrap_or(u32::MAX)).collect()
    }

    pub(crate) fn job(&self, segment: usize, job: u32) -> Option<Run> {
        let at = segment.checked_mul(self.per_segment)?.checked_add(usize::try_from(job).ok()?)?;
        self.jobs.get(at).copied()
    }

    /// The segment that all of these chunks belong to, if there is one, and they are one job at most.
    pub(crate) fn segment_of(&self, first: u64, last: u64) -> Option<usize> {
        let at = self.jobs.partition_point(|run| run.first <= first).checked_sub(1)?;
        (first <= last && last < self.jobs[at].end()).then_some(at / self.per_segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_image::manifest::{PackOptions, pack};

    fn packed(bytes: &[u8], chunk_size: u32) -> (Manifest, Index) {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("image");
        let options = PackOptions { chunk_size: Some(chunk_size), level: None, key: None, name: None };
        pack(&mut &bytes[..], None, &options, &out, &mut |_| {}).expect("packed");
        let read = |name: &str| std::fs::read(out.join(name)).expect("packed");
        let manifest = Manifest::parse(&read("manifest.json")).expect("its own");
        let index = Index::parse(read(manifest.index_name()), &manifest).expect("its own");
        (manifest, index)
    }

    #[test]
    fn every_chunk_is_in_one_place() {
        let mut bytes = vec![0u8; 9 << 20];
        bytes.iter_mut().enumerate().for_each(|(i, b)| *b = u8::try_from((i >> 12) * 7 % 255 + 1).unwrap_or(1));
        bytes[3 << 20..(4 << 20) + 70_000].fill(0);
        for chunk_size in [64 << 10, 1 << 20, 4 << 20] {
            let (manifest, index) = packed(&bytes, chunk_size);
            let most = |first: u64| (index.chunk_count() - first).min(5);
            let zero = |chunk| index.chunk(chunk) == Chunk::Zero;
            // As the writer does it: a job is of one kind.
            let layout = Layout::of(&index, &manifest, |first| {
                (1..most(first)).find(|n| zero(first + n) != zero(first)).unwrap_or_else(|| most(first))
            });
            let mut seen: Vec<u64> = [&layout.jobs, &layout.private, &layout.zeroes]
                .into_iter()
                .flatten()
                .flat_map(|run| run.first..run.end())
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..index.chunk_count()).collect::<Vec<_>>());
            for run in &layout.jobs {
                let (start, end) = (manifest.disk_range(run.first).start, manifest.disk_range(run.end() - 1).end);
                assert!(start >= EDGE && end <= manifest.disk_size() - EDGE, "{run:?} is held back");
                assert!(layout.segment_of(run.first, run.end() - 1).is_some());
                assert_eq!(layout.segment_of(run.first, run.end()), None, "beyond its job");
            }
            for run in layout.private.iter().chain(&layout.zeroes) {
                assert_eq!(layout.segment_of(run.first, run.first), None);
            }
            assert_eq!(layout.segments().iter().sum::<u32>() as usize, layout.jobs.len());
            assert_eq!(layout.segment_of(u64::MAX, u64::MAX), None);
        }
    }
}
