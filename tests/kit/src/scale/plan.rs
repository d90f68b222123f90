//! What there is in a planted store, before it has digests.

use super::Scale;
use crate::rng::Rng;

/// 2024-01-01 00:00 UTC, after which everything was built.
const EPOCH: i64 = 1_704_067_200;
const DAY: u64 = 86_400;

#[derive(Debug)]
pub(super) struct Plan {
    /// Every layer above another of the list or above none; a parent comes before its children.
    pub(super) layers: Vec<Layer>,
    pub(super) images: Vec<Image>,
    /// Each of an image, by index.
    pub(super) containers: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) parent: Option<usize>,
    /// Bytes of its files.
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Image {
    pub(super) top: usize,
    pub(super) names: Vec<String>,
    /// Kept under its digest. Without this and without names it is garbage.
    pub(super) dangling: bool,
    /// Pulled by an index, as most are.
    pub(super) index: bool,
    pub(super) pinned: bool,
    pub(super) created: i64,
    pub(super) used_at: Option<i64>,
}

impl Plan {
    /// Distributions, language runtimes above them, and applications above these: as registries are full of.
    pub(super) fn new(scale: Scale) -> Self {
        let mut rng = Rng::new(6);
        let mut layers = Vec::with_capacity(scale.layers);
        let bases = tops(&mut rng, &mut layers, (scale.images / 20).max(1), 6, &[]);
        let runtimes = tops(&mut rng, &mut layers, (scale.images / 5).max(1), 6, &bases);
        let mut images = Vec::with_capacity(scale.images);
        for number in 0..scale.images {
            // Each has one, and the popular ones have many.
            let some = rng.index(runtimes.len()) + 1;
            let below = runtimes.get(number).copied().unwrap_or_else(|| runtimes[rng.index(some)]);
            let missing = scale.layers.saturating_sub(layers.len());
            let left = scale.images - number;
            let own =
                if left == 1 { missing } else { (missing / left + rng.index(7)).saturating_sub(3).max(1) };
            let top =
                stack(&mut rng, &mut layers, Some(below), own.min(missing.saturating_sub(left - 1)).max(1));
            images.push(image(&mut rng, number, top));
        }
        let named: Vec<usize> = (0..images.len()).filter(|&i| !images[i].names.is_empty()).collect();
        let containers = (0..scale.containers).map(|_| *rng.pick(&named[named.len() / 2..])).collect();
        Self { layers, images, containers }
    }

    /// The layers of a stack, lowest first.
    pub(super) fn stack(&self, top: usize) -> Vec<usize> {
        let mut stack: Vec<usize> =
            std::iter::successors(Some(top), |layer| self.layers[*layer].parent).collect();
        stack.reverse();
        stack
    }
}

/// `count` stacks of 1 to `most` layers, each above one of `below`, none of which is left out.
fn tops(rng: &mut Rng, layers: &mut Vec<Layer>, count: usize, most: usize, below: &[usize]) -> Vec<usize> {
    (0..count)
        .map(|number| {
            let parent = below.get(number).copied().or_else(|| (!below.is_empty()).then(|| *rng.pick(below)));
            let height = 1 + rng.index(most);
            stack(rng, layers, parent, height)
        })
        .collect()
}

fn stack(rng: &mut Rng, layers: &mut Vec<Layer>, parent: Option<usize>, height: usize) -> usize {
    let mut parent = parent;
    for _ in 0..height {
        // Mostly small, some of a hundred megabytes.
        let magnitude = 8 + rng.below(20);
        let bytes = rng.below(1 << magnitude);
        layers.push(Layer { parent, bytes });
        parent = Some(layers.len() - 1);
    }
    parent.unwrap()
}

fn image(rng: &mut Rng, number: usize, top: usize) -> Image {
    let created = EPOCH + i64::try_from(rng.below(700 * DAY)).unwrap();
    let repository = format!("registry.example.com/team{}/app{}", number % 37, number / 5);
    let mut names = vec![format!("{repository}:1.{}", number % 5)];
    if rng.one_in(8) {
        names.push(format!("docker.io/library/app{number}:latest"));
    }
    let nameless = rng.one_in(8);
    if nameless {
        names.clear();
    }
    Image {
        top,
        names,
        // Of those without a name one in four is garbage.
        dangling: nameless && !rng.one_in(4),
        index: rng.one_in(2),
        pinned: rng.one_in(50),
        created,
        used_at: rng.one_in(2).then(|| created + i64::try_from(rng.below(90 * DAY)).unwrap()),
    }
}
