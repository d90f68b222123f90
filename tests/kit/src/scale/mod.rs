//! Stores of many images, which no test could load: the rows are written directly, into a store that the binary has made,
//! so that format and identity are those of the binary. The same numbers always give the same store.

mod garbage;
mod plan;
mod plant;
mod time;

use std::path::Path;

pub use garbage::plant_garbage;
pub use time::{Times, time};

/// How much a planted store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Images with a config, of which some are garbage.
    pub images: usize,
    /// Different layers; at least ten an image.
    pub layers: usize,
    /// Containers, none of them mounted.
    pub containers: usize,
}

impl Scale {
    /// What has to be fast.
    pub const LARGE: Self = Self { images: 1_000, layers: 10_000, containers: 200 };
    /// Ten times as much.
    pub const HUGE: Self = Self { images: 10_000, layers: 100_000, containers: 200 };
}

/// What commands can be tried on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Names of images that nothing else uses, and that have no other name.
    pub removable: Vec<String>,
    /// The image ID of the first of them.
    pub id: String,
    /// The diff ID of a layer that many images share.
    pub shared_layer: String,
    /// The name of a container.
    pub container: String,
}

/// Fills the store at `root`, which `layerstore` has made and holds nothing.
///
/// Manifests, indexes and configs are real files, trees real directories without files, and the blobs of layers as long as
/// they should be, without content.
pub fn plant(root: &Path, scale: Scale) -> Planted {
    plant::plant(root, &plan::Plan::new(scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Plan;

    #[test]
    fn a_plan_has_what_was_asked_for_and_is_always_the_same() {
        let scale = Scale { images: 200, layers: 2_000, containers: 20 };
        let plan = Plan::new(scale);
        assert_eq!((plan.images.len(), plan.layers.len(), plan.containers.len()), (200, 2_000, 20));
        assert_eq!(format!("{plan:?}"), format!("{:?}", Plan::new(scale)));
        let depths: Vec<usize> = plan.images.iter().map(|image| plan.stack(image.top).len()).collect();
        assert!(depths.iter().all(|depth| (5..=40).contains(depth)), "{depths:?}");
        let average = depths.iter().sum::<usize>() / depths.len();
        assert!((15..=22).contains(&average), "{average} layers an image");
        let names = |count: usize| plan.images.iter().filter(|image| image.names.len() == count).count();
        assert!(names(0) > 0 && names(2) > 0 && names(1) > 100, "names of none, one and two");
        assert!(plan.images.iter().any(|image| image.dangling));
    }

    #[test]
    fn every_layer_is_in_an_image() {
        let plan = Plan::new(Scale { images: 100, layers: 1_000, containers: 0 });
        let used: std::collections::HashSet<usize> =
            plan.images.iter().flat_map(|image| plan.stack(image.top)).collect();
        assert_eq!(used.len(), plan.layers.len());
    }
}
