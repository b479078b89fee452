//! What the store keeps for certificates of sanitization.

use speediso_model::certificate::Digest;
use speediso_model::certificate::machine::{Gone, KnownDisk};
use speediso_model::certificate::site::{CertificatePolicy, CertificateView, CertificatesQuery, SiteKeyView};
use speediso_model::id::NodeId;
use speediso_model::inventory::Disk;

use super::Fut;

/// A certificate with the columns by which it is found.
#[derive(Clone, PartialEq, Debug)]
pub struct WipeCertificate {
    pub view: CertificateView,
    /// What it was made for; there is one certificate for each.
    pub origin: String,
    /// Key of the disk; empty for a machine.
    pub disk: String,
    /// Every byte, as signed and chained.
    pub document: String,
}

/// The part of a transaction that is about certificates.
pub trait CertificateTransaction: Send {
    /// The last of the chain. What follows it must be put in the same writing transaction.
    fn wipe_certificate_head(&mut self) -> Fut<'_, Option<(u64, Digest)>>;
    /// Fails unless its number is the next one, and when there is one for its origin.
    fn put_wipe_certificate<'a>(&'a mut self, certificate: &'a WipeCertificate) -> Fut<'a, ()>;
    fn wipe_certificate(&mut self, number: u64) -> Fut<'_, Option<WipeCertificate>>;
    fn wipe_certificate_for<'a>(&'a mut self, origin: &'a str) -> Fut<'a, Option<WipeCertificate>>;
    /// Newest first.
    fn wipe_certificates<'a>(&'a mut self, query: &'a CertificatesQuery) -> Fut<'a, Vec<WipeCertificate>>;
    /// In order, those after this number.
    fn wipe_certificate_chain(&mut self, after: u64, limit: u32) -> Fut<'_, Vec<(u64, String)>>;

    /// Oldest first; the one without an end signs.
    fn site_keys(&mut self) -> Fut<'_, Vec<SiteKeyView>>;
    fn put_site_key<'a>(&'a mut self, key: &'a SiteKeyView) -> Fut<'a, ()>;

    fn certificate_policy(&mut self) -> Fut<'_, CertificatePolicy>;
    fn put_certificate_policy<'a>(&'a mut self, policy: &'a CertificatePolicy) -> Fut<'a, ()>;

    /// Every disk that was ever seen in the machine.
    fn known_disks(&mut self, node: NodeId) -> Fut<'_, Vec<KnownDisk>>;
    /// Seen now; one that was said to be gone is back.
    fn see_disk<'a>(&'a mut self, node: NodeId, key: &'a str, disk: &'a Disk) -> Fut<'a, ()>;
    /// Whether there was such a disk.
    fn put_gone<'a>(&'a mut self, node: NodeId, key: &'a str, gone: &'a Gone) -> Fut<'a, bool>;
}
