//! Answers as the specification lays them out; each names the table it was made after.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use speediso_model::inventory::bmc::SensorState;

use super::*;

/// A BMC that gives what it was told to give, and declines the rest as "invalid command" (C1h).
#[derive(Default)]
struct Scripted {
    answers: BTreeMap<String, Vec<u8>>,
    added: Mutex<Vec<[u8; 16]>>,
    fru: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl Scripted {
    fn with(mut self, request: Request, answer: &[u8]) -> Self {
        self.answers.insert(format!("{request:?}"), answer.to_vec());
        self
    }
}

impl Ipmi for Scripted {
    fn ask(&self, request: Request) -> Result<Vec<u8>, IpmiError> {
        let declined = |code| Err(IpmiError::Declined { request, code });
        match request {
            Request::FruInfo { id: 0 } if !self.fru.is_empty() => {
                Ok([&u16::try_from(self.fru.len()).expect("short").to_le_bytes()[..], &[0]].concat())
            }
            Request::FruRead { id: 0, offset, count } => {
                let from = usize::from(offset);
                let bytes = &self.fru[from..(from + usize::from(count)).min(self.fru.len())];
                Ok([&[u8::try_from(bytes.len()).expect("short")], bytes].concat())
            }
            Request::SdrReserve => Ok(vec![7, 0]),
            Request::SdrRead { reservation, record, offset, count } => {
                let Some(bytes) = self.records.get(usize::from(record)) else { return declined(0xcb) };
                if reservation != 7 {
                    return declined(0xc5);
                }
                let next = if usize::from(record) + 1 < self.records.len() { record + 1 } else { 0xffff };
                let from = usize::from(offset).min(bytes.len());
                let part = &bytes[from..(from + usize::from(count)).min(bytes.len())];
                Ok([&next.to_le_bytes()[..], part].concat())
            }
            Request::SelAdd(_) | Request::SelNote { .. } => {
                let record = request.data().try_into().expect("sixteen bytes");
                self.added.lock().expect("free").push(record);
                Ok(vec![0x2a, 0])
            }
            _ => self.answers.get(&format!("{request:?}")).cloned().map_or_else(|| declined(0xc1), Ok),
        }
    }
}

/// Table 43-1: a temperature, one degree a step.
fn full(number: u8, name: &str) -> Vec<u8> {
    let mut record = vec![0; 48];
    (record[2], record[3]) = (0x51, 0x01);
    (record[7], record[12], record[13]) = (number, 0x01, 0x01);
    (record[20], record[21], record[24]) = (0x80, 1, 1);
    record[47] = 0xc0 | u8::try_from(name.len()).expect("short");
    record.extend(name.as_bytes());
    record[4] = u8::try_from(record.len() - 5).expect("short");
    record
}

/// Table 43-2: a sensor with states.
fn compact(number: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut record = vec![0; 32];
    (record[2], record[3]) = (0x51, 0x02);
    (record[7], record[12], record[13]) = (number, kind, 0x6f);
    record[31] = 0xc0 | u8::try_from(name.len()).expect("short");
    record.extend(name.as_bytes());
    record[4] = u8::try_from(record.len() - 5).expect("short");
    record
}

fn device_id() -> Scripted {
    // Table 20-2: device 20h, revision 1, firmware 2.44, IPMI 2.0, manufacturer 674 (Dell), product 100h.
    let id = [0x20, 0x81, 0x02, 0x44, 0x02, 0xdf, 0xa2, 0x02, 0x00, 0x00, 0x01, 0x00, 0x0b, 0x00, 0x00];
    Scripted::default().with(Request::DeviceId, &id)
}

fn examined(bmc: &Scripted) -> (Bmc, Vec<String>) {
    let mut unread = Vec::new();
    let found = examine(bmc, Duration::from_secs(60), &mut unread).expect("it says what it is");
    (found, unread)
}

#[test]
fn a_bmc_says_what_it_is() {
    let guid: Vec<u8> = (0..16).collect();
    let (bmc, unread) = examined(&device_id().with(Request::SystemGuid, &guid));
    assert_eq!((bmc.firmware.as_str(), bmc.ipmi_version.as_str()), ("2.44", "2.0"));
    assert_eq!((bmc.manufacturer_id, bmc.product_id, bmc.device_revision), (674, 256, 1));
    assert_eq!(bmc.firmware_auxiliary.as_deref(), Some("000b0000"));
    assert_eq!(bmc.guid.as_deref(), Some("03020100-0504-0706-0809-0a0b0c0d0e0f"));
    // One that declines the rest has no ports and no record, and says so of what it should have.
    assert_eq!((bmc.lan.len(), bmc.fru), (0, None));
    assert_eq!(unread.len(), 2, "{unread:?}");
    assert!(unread[0].contains("event log") && unread[1].contains("sensors"), "{unread:?}");
}

#[test]
fn network_ports_are_found_by_their_medium() {
    let parameter = |channel, parameter, set| Request::LanParameter { channel, parameter, set };
    let v6 = |last: u8, status: u8| {
        let mut bytes = vec![0x11, 0, 0x80, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last, 64, status];
        bytes.truncate(21);
        bytes
    };
    let bmc = device_id()
        // Table 22-29: channel 1 is Ethernet, 2 a serial port.
        .with(Request::ChannelInfo { channel: 1 }, &[1, 4, 1, 0x80])
        .with(Request::ChannelInfo { channel: 2 }, &[2, 5, 2, 0])
        // Table 23-4, after the parameter's revision.
        .with(parameter(1, 3, 0), &[0x11, 192, 0, 2, 120])
        .with(parameter(1, 4, 0), &[0x11, 2])
        .with(parameter(1, 5, 0), &[0x11, 0xd0, 0x94, 0x66, 1, 2, 3])
        .with(parameter(1, 6, 0), &[0x11, 255, 255, 255, 0])
        .with(parameter(1, 12, 0), &[0x11, 0, 0, 0, 0])
        .with(parameter(1, 20, 0), &[0x11, 0x65, 0x80])
        .with(parameter(1, 56, 0), &v6(1, 0))
        // Being set up, and none.
        .with(parameter(1, 56, 1), &v6(2, 1))
        .with(parameter(1, 59, 0), &v6(3, 0));
    let (found, _) = examined(&bmc);
    let [port] = found.lan.as_slice() else { panic!("{:?}", found.lan) };
    assert_eq!((port.mac.as_str(), port.source.as_str()), ("d0:94:66:01:02:03", "dhcp"));
    assert_eq!((port.address.as_deref(), port.gateway.as_deref()), (Some("192.0.2.120"), None));
    assert_eq!((port.netmask.as_deref(), port.vlan), (Some("255.255.255.0"), Some(101)));
    assert_eq!(port.v6_addresses, ["2001:db8::1/64", "2001:db8::3/64"]);
}

#[test]
fn sensors_have_values_states_and_reasons() {
    let reading = |number| Request::SensorReading { number, lun: 0 };
    let thresholds = |number| Request::SensorThresholds { number, lun: 0 };
    let mut logarithm = full(3, "LOG");
    logarithm[23] = 1;
    let mut bmc = device_id()
        // Table 35-15: value, scanning on, which thresholds it is beyond.
        .with(reading(1), &[41, 0xc0, 0xc0])
        .with(reading(2), &[96, 0xc0, 0xd8])
        .with(reading(3), &[1, 0xc0, 0xc0])
        .with(reading(4), &[0, 0xe0, 0])
        .with(reading(5), &[0, 0xc0, 0x03, 0x80])
        // Table 35-9: the upper two can be read.
        .with(thresholds(1), &[0x18, 0, 0, 0, 85, 90, 0])
        .with(thresholds(2), &[0x00, 0, 0, 0, 0, 0, 0]);
    bmc.records =
        vec![full(1, "Inlet"), full(2, "CPU1"), logarithm, full(4, "Off"), compact(5, 0x08, "PS1"), full(6, "Gone")];
    // A locator of a device is no sensor.
    let mut other = compact(9, 1, "FRU");
    other[3] = 0x11;
    bmc.records.push(other);
    let (found, _) = examined(&bmc);
    let [inlet, cpu, log, off, supply, gone] = found.sensors.as_slice() else { panic!("{:#?}", found.sensors) };
    assert_eq!((inlet.name.as_str(), inlet.kind.as_str(), inlet.unit.as_str()), ("Inlet", "temperature", "degrees C"));
    assert_eq!((inlet.value, inlet.state), (Some(41.0), SensorState::Ok));
    assert_eq!((inlet.thresholds.upper_non_critical, inlet.thresholds.upper_critical), (Some(85.0), Some(90.0)));
    assert_eq!(inlet.thresholds.upper_non_recoverable, None);
    assert_eq!((cpu.value, cpu.state), (Some(96.0), SensorState::Critical));
    assert!(log.value.is_none() && log.unread.as_ref().is_some_and(|why| why.contains("not linear")), "{log:?}");
    assert!(off.value.is_none() && off.unread.as_deref() == Some("it has no reading now"), "{off:?}");
    assert_eq!((supply.kind.as_str(), supply.states, supply.value), ("power_supply", Some(3), None));
    assert!(gone.unread.as_ref().is_some_and(|why| why.contains("0xc1")), "{gone:?}");
}

#[test]
fn the_event_log_is_read_from_its_end_and_written_to() {
    let entry = |record: u16| Request::SelEntry { record };
    // Table 32-1: number, type, time, generator, revision, sensor type and number, direction, three bytes of data.
    let line = |number: u16, kind: u8, sensor: u8, event: u8, data: u8| {
        let mut bytes = vec![0xff, 0xff];
        bytes.extend(number.to_le_bytes());
        bytes.extend([kind, 0x10, 0x32, 0x54, 0x65, 0x20, 0, 4, sensor, 0x51, event, data, 0xff, 0xff]);
        bytes
    };
    let bmc = device_id()
        // Table 31-2: version 51h, three entries, 4096 bytes free, an overflow.
        .with(Request::SelInfo, &[0x51, 3, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x80])
        .with(entry(0xffff), &line(9, 0x02, 0x0c, 0x6f, 0x01))
        .with(entry(8), &line(8, 0x02, 0x01, 0x81, 0x59))
        .with(entry(4), &line(4, 0xc0, 0, 0, 0))
        // One that gives the next instead of what was asked for.
        .with(entry(5), &line(8, 0x02, 0x01, 0x01, 0x59));
    let (found, _) = examined(&bmc);
    let log = found.event_log.expect("a log");
    assert_eq!((log.entries, log.free_bytes, log.overflow), (3, 4096, true));
    let lines: Vec<(u16, &str)> = log.newest.iter().map(|e| (e.record, e.text.as_str())).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0].0, 4);
    assert!(lines[0].1.contains("only the maker"), "{lines:?}");
    assert_eq!(lines[1], (8, "temperature sensor 0x51: above the upper critical threshold, rising, is over"));
    assert_eq!(lines[2], (9, "memory sensor 0x51: uncorrectable error"));
    assert_eq!(log.newest[2].time, Some(0x6554_3210));

    assert_eq!(add_event(&bmc, Installation::Failed).expect("added"), 42);
    let added = bmc.added.lock().expect("free")[0];
    assert_eq!(added, [0, 0, 2, 0, 0, 0, 0, 0x83, 0, 4, 0x1f, 0, 0x6f, 0x0a, 0xff, 0xff]);
}

/// Table 32-3: a record of thirteen free bytes. What a machine left there is read as it was meant.
#[test]
fn a_failure_is_left_in_parts_and_a_full_log_is_left_alone() {
    let info = |free: u16| [&[0x51, 1, 0][..], &free.to_le_bytes(), &[0; 9]].concat();
    let bmc = Scripted::default().with(Request::SelInfo, &info(4096));
    add_note(&bmc, "controller-unreachable").expect("taken");
    let added = bmc.added.lock().expect("free").clone();
    assert_eq!(added.len(), 3);
    assert!(added.iter().all(|record| record[..6] == *b"\0\0\xe0SPD"));
    let read: Vec<String> = added.iter().map(|record| sel::entry(record).text).collect();
    assert_eq!(read, ["part 1 of 3: controll", "part 2 of 3: er-unrea", "part 3 of 3: chable"]);
    let full = Scripted::default().with(Request::SelInfo, &info(200));
    assert!(add_note(&full, "no-link").is_err() && full.added.lock().expect("free").is_empty());
    // Not ours: the maker's, whatever it says.
    let mut foreign = added[0];
    foreign[3] = b'X';
    assert_eq!(sel::entry(&foreign).kind, "maker's own");
}

/// Platform Management FRU Information Storage Definition 1.0, sections 8 to 12.
fn fru_bytes() -> Vec<u8> {
    let area = |head: &[u8], fields: &[&str]| {
        let mut bytes = head.to_vec();
        for field in fields {
            bytes.push(0xc0 | u8::try_from(field.len()).expect("short"));
            bytes.extend(field.as_bytes());
        }
        bytes.push(0xc1);
        bytes.resize((bytes.len() + 1).next_multiple_of(8), 0);
        bytes[1] = u8::try_from(bytes.len() / 8).expect("short");
        let sum = bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        *bytes.last_mut().expect("not empty") = sum.wrapping_neg();
        bytes
    };
    let chassis = area(&[1, 0, 0x17], &["CHP", "CHS1"]);
    let board = area(&[1, 0, 0, 1, 2, 3], &["Maker", "Board X", "BS1", "BP1"]);
    let product = area(&[1, 0, 0], &["Maker", "Server 9", "P9", "A00", "PS1", "Rack 7"]);
    let at = |n: usize| u8::try_from(n / 8).expect("short");
    let (c, b) = (8, 8 + chassis.len());
    let mut header = vec![1, 0, at(c), at(b), at(b + board.len()), 0, 0];
    header.push(header.iter().fold(0u8, |sum, x| sum.wrapping_add(*x)).wrapping_neg());
    [header, chassis, board, product].concat()
}

#[test]
fn the_makers_record_is_read_area_by_area() {
    let mut bmc = device_id();
    bmc.fru = fru_bytes();
    let (found, _) = examined(&bmc);
    let fru = found.fru.expect("a record");
    assert_eq!((fru.chassis_part.as_str(), fru.chassis_serial.as_str()), ("CHP", "CHS1"));
    assert_eq!((fru.board_product.as_str(), fru.board_serial.as_str()), ("Board X", "BS1"));
    assert_eq!((fru.product_name.as_str(), fru.product_serial.as_str()), ("Server 9", "PS1"));
    assert_eq!(fru.asset_tag, "Rack 7");
    // An area whose sum is wrong says nothing; a header that is wrong is told.
    let mut bytes = fru_bytes();
    bytes[12] ^= 1;
    let fru = fru::parse(&bytes).expect("the rest");
    assert_eq!((fru.chassis_part.as_str(), fru.board_product.as_str()), ("", "Board X"));
    bytes[0] = 2;
    assert!(fru::parse(&bytes).is_err() && fru::parse(&[]).is_err());
}

#[test]
fn a_repository_that_runs_in_a_circle_ends() {
    struct Circle;
    impl Ipmi for Circle {
        fn ask(&self, request: Request) -> Result<Vec<u8>, IpmiError> {
            match request {
                Request::SdrReserve => Ok(vec![0, 0]),
                // One, two, one, two: records of no length.
                Request::SdrRead { record, .. } => Ok(vec![u8::from(record != 1), 0, 0, 0, 0x51, 0x12, 0]),
                _ => Err(IpmiError::Declined { request, code: 0xc1 }),
            }
        }
    }
    let end = Instant::now() + Duration::from_secs(60);
    assert!(matches!(sdr::sensors(&Circle, end), Err(IpmiError::Nonsense { .. })));
    let (none, cut) = sdr::sensors(&Circle, Instant::now()).expect("cut off");
    assert!(none.is_empty() && cut.is_some_and(|c| c.contains("too long")));
}

proptest! {
    #[test]
    fn any_record_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), sensor in prop::collection::vec(any::<u8>(), 5..80)) {
        let _ = fru::parse(&bytes);
        let _ = convert::text(&bytes);
        let mut bmc = device_id();
        for number in 0..=255 {
            let answer = bytes.get(..7).unwrap_or(&bytes);
            bmc = bmc.with(Request::SensorReading { number, lun: sensor.get(6).map_or(0, |l| l & 3) }, answer);
        }
        let mut record = sensor;
        (record[3], record[4]) = (record[3] & 1 | 1, u8::try_from(record.len() - 5).expect("short"));
        bmc.records = vec![record];
        bmc.fru = bytes.clone();
        let mut unread = Vec::new();
        prop_assert!(examine(&bmc, Duration::from_secs(60), &mut unread).is_ok());
    }
}
