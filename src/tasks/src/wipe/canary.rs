//! Marks planted all over a disk before it erases itself, and searched for afterwards: a device that says "success" and
//! did nothing is found by them, and by nothing else.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::WipeVerify;
use speediso_model::units::{Bytes, MIB};
use speediso_model::wipe::{Canaries, Verification, VerificationKind};
use speediso_sys::buffer::AlignedBuffer;

use super::flow::{self, Load, Piece};
use super::pattern::{Kind, Pattern, mix};
use super::target::{On as _, Target};
use super::verify;
use crate::ctx::{Meter, TaskCtx};

/// Half a minute on a disk that turns.
const MOST: u64 = 1024;
/// Read whole at both ends, whatever else is read.
const ZONE: u64 = 16 * MIB;

/// Where this run's marks are. The same seed gives the same places, so that a restarted agent finds what its predecessor
/// has planted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planted {
    pub(super) seed: u64,
    count: u64,
}

impl Planted {
    pub(super) fn on(device: &dyn Target, seed: u64) -> Self {
        let sectors = device.size() / device.sector_size();
        Self { seed, count: MOST.min(sectors / 8).max(1) }
    }

    fn pattern(self) -> Pattern {
        Pattern { kind: Kind::Canary, seed: self.seed }
    }

    /// One in each of as many stretches, so that no part of the disk is without.
    fn places(self, device: &dyn Target) -> impl Iterator<Item = Piece> + Send + use<> {
        let (sector, n, seed) = (device.sector_size(), self.count, self.seed);
        let stretch = (device.size() / sector / n).max(1);
        let length = usize::try_from(sector).unwrap_or(512);
        (0..n).map(move |i| Piece { offset: (i * stretch + mix(seed ^ mix(i)) % stretch) * sector, length })
    }

    /// Writes them, and reads them back: what is not there before cannot be missed afterwards.
    pub(super) fn plant(self, device: &dyn Target) -> Result<(), Fault> {
        let mut buffer = AlignedBuffer::zeroed(usize::try_from(device.sector_size()).unwrap_or(512));
        for place in self.places(device) {
            self.pattern().fill(place.offset, &mut buffer);
            device.write_at(place.offset, &buffer).on(device)?;
        }
        device.flush().on(device)?;
        for place in self.places(device) {
            device.read_at(place.offset, &mut buffer).on(device)?;
            if self.pattern().first_difference(place.offset, &buffer).is_some() {
                return Err(Fault::new(
                    FaultCode::ReadBackMismatch,
                    format!("{} does not return the mark written at byte {}", device.name(), place.offset),
                ));
            }
        }
        Ok(())
    }

    /// Reads their places, both ends, and as much of the rest as `mode` says, and looks for them everywhere.
    pub(super) fn search(
        self,
        mode: WipeVerify,
        was_planted: bool,
        device: &dyn Target,
        load: Load,
        ctx: &TaskCtx,
    ) -> Result<Verification, Fault> {
        let size = device.size();
        let (rest, rest_total, sample) = verify::places(mode, size, load.chunk, rand::random());
        let zone = ZONE.min(size);
        let places = self.places(device).chain(flow::pieces(0, zone, load.chunk)).chain(flow::pieces(
            size - zone,
            size,
            load.chunk,
        ));
        let sector = device.sector_size();
        let total = self.count * sector + 2 * zone + rest_total;
        let mut meter = Meter::new(ctx, "looking for canaries", device.name(), Some(total));
        let found = std::sync::atomic::AtomicU64::new(0);
        let mut read = 0;
        flow::run(
            load,
            places.chain(rest),
            ctx,
            |piece, buffer| {
                device.read_at(piece.offset, buffer).on(device)?;
                found.fetch_add(self.pattern().count_in(buffer), std::sync::atomic::Ordering::Relaxed);
                Ok(())
            },
            |piece| {
                read += piece.length as u64;
                meter.at(read);
            },
        )?;
        let found = found.into_inner();
        if found > 0 {
            return Err(Fault::new(
                FaultCode::VerifyFailed,
                format!(
                    "{} reports success, but sectors that were marked before are still there: it did not erase",
                    device.name()
                ),
            )
            .because(format!(
                "{} marks were planted with seed {:016x}, {found} sectors of them read back",
                self.count, self.seed
            )));
        }
        let how_much = match mode {
            WipeVerify::Full => "all of the disk".to_owned(),
            WipeVerify::SamplePercent(percent) => {
                format!("{percent} % of the disk at random, {} at each end", Bytes(zone))
            }
        };
        let marks = if was_planted {
            format!("none of {} marks planted before is found", self.count)
        } else {
            "no marks were planted, since the device was closed or erasing itself already".to_owned()
        };
        Ok(Verification {
            kind: VerificationKind::DeviceStatus,
            bytes: Bytes(read),
            sample,
            pattern_seed: None,
            canaries: was_planted.then(|| Canaries {
                seed: format!("{:016x}", self.seed),
                planted: self.count,
                found_after: found,
            }),
            in_words: format!("the device reports success; {marks} in {how_much}"),
        })
    }
}
