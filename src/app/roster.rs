//! Who could answer now, over all capabilities.

use std::sync::Arc;

use super::door::Door;
use super::shelf::Shelf;
use crate::provider::fallback::Link;
use crate::provider::route::Routed;
use crate::provider::{Capability, ModelCard, ProviderReport, Roster};

/// One capability: what it may be asked for and along which chain.
pub(super) struct Desk<D: ?Sized> {
    pub(super) shelf: Arc<Shelf<D>>,
    pub(super) door: Arc<Routed<D>>,
}

impl<D: ?Sized> Clone for Desk<D> {
    fn clone(&self) -> Self {
        Self { shelf: Arc::clone(&self.shelf), door: Arc::clone(&self.door) }
    }
}

impl<D: Door + ?Sized> Roster for Desk<D> {
    fn models(&self) -> Vec<ModelCard> {
        self.shelf.cards(self.door.own().links())
    }

    fn providers(&self) -> Vec<ProviderReport> {
        let capability: Capability = D::CAPABILITY;
        self.door.own().links().iter().map(|link: &Link<D>| link.report(capability)).collect()
    }
}

/// All of them.
pub(super) struct Desks(pub(super) Vec<Box<dyn Roster>>);

impl Roster for Desks {
    fn models(&self) -> Vec<ModelCard> {
        self.0.iter().flat_map(|desk| desk.models()).collect()
    }

    fn providers(&self) -> Vec<ProviderReport> {
        self.0.iter().flat_map(|desk| desk.providers()).collect()
    }
}
