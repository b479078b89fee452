//! The tables `pci.ids` and `usb.ids`: names of vendors, products and subsystems.
//!
//! They are too large for the ramdisk and for memory: one pass over the text finds the names that are wanted, and keeps
//! only those. An agent in the ramdisk sends numbers; whoever stores or shows them and has the tables adds the names.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};

use crate::inventory::{Inventory, PciDevice};

/// Where distributions put them.
pub const DIRECTORIES: [&str; 2] = ["/usr/share/misc", "/usr/share/hwdata"];

/// Both have grown to 1.5 MB in 25 years.
const LIMIT: u64 = 16 << 20;

/// A vendor and a product; four lower-case hexadecimal digits each.
type Product = (String, String);

/// What is wanted, and then what was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    vendors: BTreeMap<String, Option<String>>,
    products: BTreeMap<Product, Option<String>>,
    subsystems: BTreeMap<(Product, Product), Option<String>>,
}

impl Names {
    /// Of all PCI devices of this machine.
    #[must_use]
    pub fn wanted_by(inventory: &Inventory) -> Self {
        let mut names = Self::default();
        for device in &inventory.pci_devices {
            names.want(&device.vendor_id, &device.product_id);
            if let Some(subsystem) = subsystem(device) {
                names.subsystems.insert((product(device), subsystem), None);
            }
        }
        names
    }

    pub fn want(&mut self, vendor: &str, product: &str) {
        self.vendors.insert(vendor.to_owned(), None);
        self.products.insert((vendor.to_owned(), product.to_owned()), None);
    }

    #[must_use]
    pub fn vendor(&self, vendor: &str) -> Option<&str> {
        self.vendors.get(vendor)?.as_deref()
    }

    #[must_use]
    pub fn product(&self, vendor: &str, product: &str) -> Option<&str> {
        self.products.get(&(vendor.to_owned(), product.to_owned()))?.as_deref()
    }

    /// Looks through a table that is in memory.
    pub fn find_in(&mut self, table: &[u8]) {
        let mut finder = self.finder();
        table.split(|b| *b == b'\n').for_each(|line| finder.line(line));
    }

    /// Reads a table line by line: the whole of it would be most of what an inventory needs of memory. Where it cannot
    /// be read there are no names.
    pub fn find_through(&mut self, table: impl Read) {
        let mut finder = self.finder();
        let mut table = BufReader::with_capacity(1 << 16, table.take(LIMIT));
        let mut line = Vec::new();
        while table.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            finder.line(line.trim_ascii_end());
            line.clear();
        }
    }

    /// For a table that is taken line by line.
    pub fn finder(&mut self) -> Finder<'_> {
        Finder { names: self, vendor: None, product: None }
    }

    /// Writes what was found into an inventory. Names that are there already stay.
    pub fn name(&self, inventory: &mut Inventory) {
        for device in &mut inventory.pci_devices {
            let own = product(device);
            let found = |name: Option<&Option<String>>| name.cloned().flatten();
            device.vendor_name = device.vendor_name.take().or_else(|| found(self.vendors.get(&own.0)));
            device.product_name = device.product_name.take().or_else(|| found(self.products.get(&own)));
            if let Some(subsystem) = subsystem(device) {
                let name = found(self.subsystems.get(&(own, subsystem)));
                device.subsystem_name = device.subsystem_name.take().or(name);
            }
        }
        for gpu in &mut inventory.gpus {
            let device = inventory.pci_devices.iter().find(|device| device.bus == gpu.pci_address);
            if let Some(device) = device.filter(|device| device.product_name.is_some()) {
                gpu.name = Some(device.title());
            }
        }
    }
}

/// Where in a table it is: the vendor and the product whose lines come now, if anybody asked for them.
#[derive(Debug)]
pub struct Finder<'a> {
    names: &'a mut Names,
    vendor: Option<String>,
    product: Option<Product>,
}

impl Finder<'_> {
    /// One line, in their order. What is not of the table's form is passed over.
    pub fn line(&mut self, line: &[u8]) {
        match line {
            [] | [b'#', ..] => {}
            // The lists after the vendors (classes, languages, ...) begin with a letter and a blank.
            [_, b' ', ..] => self.vendor = None,
            [b'\t', b'\t', rest @ ..] => self.subsystem(rest),
            [b'\t', rest @ ..] => {
                self.product = None;
                if let (Some(vendor), Some((number, name))) = (&self.vendor, id(rest)) {
                    let key = (vendor.clone(), number);
                    if let Some(place) = self.names.products.get_mut(&key) {
                        place.get_or_insert_with(|| text(name));
                        self.product = Some(key);
                    }
                }
            }
            line => {
                self.product = None;
                self.vendor = id(line).and_then(|(number, name)| {
                    self.names.vendors.get_mut(&number)?.get_or_insert_with(|| text(name));
                    Some(number)
                });
            }
        }
    }

    fn subsystem(&mut self, line: &[u8]) {
        if let (Some(product), Some((vendor, rest))) = (&self.product, id(line))
            && let [b' ', rest @ ..] = rest
            && let Some((device, name)) = id(rest)
            && let Some(place) = self.names.subsystems.get_mut(&(product.clone(), (vendor, device)))
        {
            place.get_or_insert_with(|| text(name));
        }
    }
}

fn product(device: &PciDevice) -> Product {
    (device.vendor_id.clone(), device.product_id.clone())
}

fn subsystem(device: &PciDevice) -> Option<Product> {
    Some((device.subsystem_vendor_id.clone()?, device.subsystem_id.clone()?))
}

/// Four digits and what follows.
fn id(line: &[u8]) -> Option<(String, &[u8])> {
    let (number, rest) = line.split_at_checked(4)?;
    number.iter().all(u8::is_ascii_hexdigit).then(|| (String::from_utf8_lossy(number).into_owned(), rest))
}

fn text(raw: &[u8]) -> String {
    const LIMIT: usize = 160;
    String::from_utf8_lossy(raw).trim().chars().filter(|c| !c.is_control()).take(LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Gpu;

    const TABLE: &str = "\
# a comment
8086  Intel Corporation
\t1572  Ethernet Controller X710 for 10GbE SFP+
\t\t1028 1f99  Ethernet 10G 4P X710/I350 rNDC
\t\t8086 0000  Ethernet Converged Network Adapter X710
\t1573  Something else
\t\t8086 0000  Not asked for
10de  NVIDIA Corporation
\t2330  GH100 [H100 SXM5 80GB]
C 02  Network controller
\t00  Ethernet controller
\t\t8086 0000  No subsystem
";

    fn device(vendor: &str, product: &str, subsystem: Option<(&str, &str)>) -> PciDevice {
        PciDevice {
            bus: format!("0000:{}:00.0", &product[..2]),
            vendor_id: vendor.into(),
            product_id: product.into(),
            subsystem_vendor_id: subsystem.map(|s| s.0.into()),
            subsystem_id: subsystem.map(|s| s.1.into()),
            ..PciDevice::default()
        }
    }

    #[test]
    fn names_are_found_in_one_pass() {
        let mut inventory = Inventory {
            pci_devices: vec![
                device("8086", "1572", Some(("8086", "0000"))),
                device("8086", "ffff", None),
                device("10de", "2330", None),
                device("1234", "0001", None),
            ],
            gpus: vec![Gpu { pci_address: "0000:23:00.0".into(), ..Gpu::default() }],
            ..Inventory::default()
        };
        let mut names = Names::wanted_by(&inventory);
        names.find_through(TABLE.as_bytes());
        let mut at_once = Names::wanted_by(&inventory);
        at_once.find_in(TABLE.as_bytes());
        assert_eq!(names, at_once);
        names.name(&mut inventory);
        let titles: Vec<String> = inventory.pci_devices.iter().map(PciDevice::title).collect();
        assert_eq!(
            titles,
            [
                "Intel Corporation Ethernet Controller X710 for 10GbE SFP+",
                "Intel Corporation [ffff]",
                "NVIDIA Corporation GH100 [H100 SXM5 80GB]",
                "[1234:0001]",
            ]
        );
        assert_eq!(inventory.pci_devices[0].subsystem_name.as_deref(), Some("Ethernet Converged Network Adapter X710"));
        assert_eq!(inventory.gpus[0].name.as_deref(), Some("NVIDIA Corporation GH100 [H100 SXM5 80GB]"));
    }

    proptest::proptest! {
        #[test]
        fn any_table_is_survived(table in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let mut names = Names::default();
            names.want("8086", "1572");
            names.find_in(&table);
        }
    }
}
