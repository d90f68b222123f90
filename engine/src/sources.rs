//! Where evicted layers can be fetched from, and what happens when a name that says so is given to another image.
//!
//! Docker moves names without asking, so this only tells. `rmi` and policies, which ask anyway, refuse
//! ([`Error::LastSource`](crate::Error::LastSource)).

use layerstore_oci::{Digest, Reference};
use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::error::Result;
use crate::event::{Event, Listener};
use crate::names::{named, shown_name};

/// A pulled name that may get another target.
#[derive(Debug)]
struct Origin {
    name: Reference,
    target: Digest,
    /// The image ID.
    id: Digest,
    /// Its layers whose blobs were evicted.
    layers: Vec<Digest>,
}

impl Layerstore {
    /// Does `work`, which may give `names` to other images. Tells what cannot be fetched any more after that.
    pub(crate) fn telling_what_is_lost<T>(
        &self,
        names: &[String],
        listener: &Listener<'_>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let (done, notes) = self.noting_what_is_lost(names, work)?;
        for note in notes {
            listener(Event::Note(note));
        }
        Ok(done)
    }

    /// The same with what there is to tell.
    pub(crate) fn noting_what_is_lost<T>(
        &self,
        names: &[String],
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Vec<String>)> {
        let mut origins = Vec::new();
        for name in names {
            origins.extend(self.origin(name)?);
        }
        let done = work()?;
        let mut notes = Vec::new();
        for origin in &origins {
            notes.extend(self.loss(origin)?);
        }
        Ok((done, notes))
    }

    /// What a name says about where to fetch evicted layers.
    fn origin(&self, name: &str) -> Result<Option<Origin>> {
        let Some(reference) = named(name) else { return Ok(None) };
        let rows = self.store.images_named(LOCAL, name)?;
        let mut own = rows.iter().filter(|row| row.name == name && row.pulled_at.is_some()).peekable();
        let Some(target) = own.peek().map(|row| row.target.clone()) else { return Ok(None) };
        let mut origin: Option<Origin> = None;
        for image in own.filter_map(|row| row.image.as_ref()) {
            for (blob, diff_id) in self.store.absent_layers(&image.manifest)? {
                if self.store.is_evicted(&blob, &diff_id)? {
                    let origin = origin.get_or_insert_with(|| Origin {
                        name: reference.clone(),
                        target: target.clone(),
                        id: image.config.clone(),
                        layers: Vec::new(),
                    });
                    origin.layers.push(blob);
                }
            }
        }
        Ok(origin)
    }

    /// What is to be told if nobody knows any more where the layers came from, though images here have them.
    fn loss(&self, origin: &Origin) -> Result<Option<String>> {
        let mut without: Vec<String> = Vec::new();
        for layer in &origin.layers {
            if self.store.pulled_names_with(layer)?.is_empty() {
                without.extend(self.store.names_with(layer)?);
            }
        }
        without.sort();
        without.dedup();
        let Some(first) = without.first() else { return Ok(None) };
        let first = match named(first) {
            Some(_) => shown_name(first),
            None => format!("image {}", origin.id.short()),
        };
        let others = match without.len() - 1 {
            0 => String::new(),
            1 => " and 1 other".to_owned(),
            others => format!(" and {others} others"),
        };
        Ok(Some(format!(
            "layers of {first}{others} were evicted, and {} was the last name to fetch them by for a push or save; \
             `layerstore pull {}@{}` makes another",
            origin.name.familiar(),
            origin.name.familiar_repository(),
            origin.target,
        )))
    }
}
